"""The decoders of the compiled policy engine and of the loading child: for each, what decodes, and its seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files

import msgspec

from ringfence.policies.compiled import extensions
from ringfence.policies.compiled.values import EvaluationError
from ringfence.policies.folder import load_bundle, read_files
from ringfence.policies.loading.checked import accept, parse_answer
from ringfence.policies.loading.messages import Checked, Refused

_FOLDER = files("ringfence.policies") / "bundles" / "default"
_FILES = read_files(_FOLDER)
_BUNDLE = load_bundle(_FOLDER)
_SHORT = replace(_BUNDLE, schema="", policies=_BUNDLE.policies[:1], cases=_BUNDLE.cases[:1])
_CHECKED = msgspec.msgpack.encode(Checked.of(_SHORT, ()))
_REFUSED = msgspec.msgpack.encode(Refused("policy.bad_syntax", "m", "policies/x.cedar:1", "h"))


def _read(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    def decode(data: bytes) -> None:
        with contextlib.suppress(EvaluationError):
            parse(data.decode("latin-1"))

    return decode


TARGETS: Mapping[str, tuple[Callable[[bytes], object], tuple[bytes, ...]]] = {
    "policies.datetime": (_read(extensions.datetime), (b"2024-02-29T23:59:59.999+0130",)),
    "policies.decimal": (_read(extensions.decimal), (b"-922337203685477.5808",)),
    "policies.duration": (_read(extensions.duration), (b"-1d2h3m4s5ms",)),
    "policies.ip": (_read(extensions.ip), (b"10.0.0.1/8", b"fe80::1/64")),
    "policies.loading.answer": (lambda data: accept(parse_answer(data), _FILES), (_CHECKED, _REFUSED)),
}
