"""Requests that pass without a decision, because an operator named them: exact paths, and CORS preflights. Pure."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from ringfence import httpsig
from ringfence.plugin.hosts.fields import Fields

ExemptPath = Annotated[str, msgspec.Meta(pattern=r"^/[A-Za-z0-9._~/-]*\Z", max_length=256)]
Origin = Annotated[str, msgspec.Meta(pattern=r"^https?://[a-z0-9.-]{1,253}(:[0-9]{1,5})?\Z")]
_SAFE: Final = ("GET", "HEAD")
_CREDENTIALS: Final = ("authorization", "cookie", "dpop", "signature", "signature-input")


class Exemptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`exempt` are paths that anybody may GET or HEAD, without a query; `preflight` the origins whose CORS preflight
    requests pass. Both are exact: no prefix, no pattern, no case folding."""

    exempt: Annotated[tuple[ExemptPath, ...], msgspec.Meta(max_length=64)] = ()
    preflight: Annotated[tuple[Origin, ...], msgspec.Meta(max_length=64)] = ()


def is_exempt(target: httpsig.Target, headers: Fields, exemptions: Exemptions) -> bool:
    """Whether the request passes without a decision. Such a request is forwarded without an assertion.

    A preflight is an OPTIONS request with one Origin that is listed and one Access-Control-Request-Method (Fetch
    standard, section 3.2). It carries no credentials by definition, so one with `Authorization`, `Cookie` or a
    signature is none.
    """
    if target.method in _SAFE:
        return target.query == "?" and target.path in exemptions.exempt
    if target.method != "OPTIONS" or not exemptions.preflight:
        return False
    origins = [value for name, value in headers if name == "origin"]
    methods = [value for name, value in headers if name == "access-control-request-method"]
    credentials = any(name in _CREDENTIALS for name, _ in headers)
    return len(origins) == 1 and origins[0] in exemptions.preflight and len(methods) == 1 and not credentials
