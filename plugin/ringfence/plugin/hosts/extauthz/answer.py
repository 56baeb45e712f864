"""An `Answer` as a CheckResponse for Envoy. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

import msgspec
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from ringfence.plugin.api import PROBLEM, Problem
from ringfence.plugin.hosts.extauthz._pb import check_pb2
from ringfence.plugin.hosts.extauthz.errors import ANSWER_UNUSABLE, ExtAuthzError
from ringfence.plugin.hosts.port import Answer

_PERMISSION_DENIED: Final = 7
# `envoy.type.v3.StatusCode` knows these; a response with another is invalid to Envoy.
_STATUSES: Final = frozenset((*range(400, 418), *range(421, 425), 426, 428, 429, 431, *range(500, 509), 510, 511))
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")


def write_answer(answer: Answer, stripped: Collection[str]) -> bytes:
    """The CheckResponse of an answer; `stripped` are fields that must not reach the upstream from the caller.

    Raises `extauthz.answer_unusable` where a field cannot be sent: then nothing of it is, and Envoy denies.
    """
    if not answer.allowed:
        return _denied(answer)
    response = check_pb2.CheckResponse(status=check_pb2.Status())
    allowed = response.ok_response
    _set(allowed.headers, answer.forward)
    # Envoy removes last: what Ringfence itself sets must not be among it, and is overwritten already.
    ours = {name.lower() for name, _ in answer.forward}
    allowed.headers_to_remove.extend(name.encode("latin-1") for name in sorted(stripped) if name not in ours)
    return response.SerializeToString()


def write_refusal(error: ExtAuthzError) -> bytes:
    """The CheckResponse of a request that the adapter itself refuses (RFC 9457)."""
    status = error.code.kind.http
    problem = Problem(error.code.name, error.message, status, error.field, error.hint)
    return _denied(Answer(status, headers=(("content-type", PROBLEM),), body=msgspec.json.encode(problem)))


def _denied(answer: Answer) -> bytes:
    status = answer.status
    if status not in _STATUSES:
        status = 503 if status >= 500 else 403
    response = check_pb2.CheckResponse(
        status=check_pb2.Status(code=_PERMISSION_DENIED),
        denied_response=check_pb2.DeniedHttpResponse(status=check_pb2.HttpStatus(code=status), body=answer.body),
    )
    _set(response.denied_response.headers, answer.headers)
    return response.SerializeToString()


def _set(
    options: RepeatedCompositeFieldContainer[check_pb2.HeaderValueOption], fields: Iterable[tuple[str, str]]
) -> None:
    seen: set[str] = set()
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ExtAuthzError(ANSWER_UNUSABLE, f"The answer's field {name!r} is no field of HTTP.")
        # The first replaces what Envoy or the caller has put there; those that follow stand beside it.
        action = check_pb2.APPEND_IF_EXISTS_OR_ADD if name in seen else check_pb2.OVERWRITE_IF_EXISTS_OR_ADD
        seen.add(name)
        header = check_pb2.HeaderValue(key=name.encode(), value=value.encode())
        options.append(check_pb2.HeaderValueOption(header=header, append_action=action))
