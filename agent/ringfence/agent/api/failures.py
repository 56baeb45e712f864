"""How an error crosses gRPC: its code, kind and texts in one binary trailer beside the status."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ringfence.errors import Code, Kind, RingfenceError

TRAILER: Final = "ringfence-error-bin"


class AgentError(RingfenceError):
    """An error that the agent reported."""


class _Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    kind: str
    message: str
    field: str
    hint: str


def encode(error: RingfenceError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata of `error`."""
    failure = _Failure(error.code.name, error.code.kind.name, error.message, error.field, error.hint)
    return ((TRAILER, msgspec.msgpack.encode(failure)),)


def decode(metadata: Iterable[tuple[str, str | bytes]] | None) -> RingfenceError | None:
    """The error in trailing metadata; None when there is none that parses."""
    for key, value in metadata or ():
        if key == TRAILER and isinstance(value, bytes):
            try:
                failure = msgspec.msgpack.decode(value, type=_Failure)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return None
            return rebuild(failure.code, failure.kind, failure.message, field=failure.field, hint=failure.hint)
    return None


def rebuild(code: str, kind: str, message: str, *, field: str = "", hint: str = "") -> AgentError:
    """The error that an agent described; a kind that this version does not know counts as an internal one."""
    known = Kind.__members__.get(kind, Kind.INTERNAL)
    return AgentError(Code(code, known), message, field=field, hint=hint)
