"""The one error root: every failure a person or a program can meet has a stable code.

A part declares its codes once, as `Code` constants, and raises its own family of `RingfenceError`. The edge of a
process maps a code's `Kind` to a wire status, so nothing inside the core knows about HTTP or gRPC.

Statuses follow RFC 9110 section 15 and the gRPC status codes (grpc/grpc, doc/statuscodes.md).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What sort of failure a code is, with the status each wire gives it."""

    INVALID = (400, 3)  # INVALID_ARGUMENT
    UNAUTHENTICATED = (401, 16)  # UNAUTHENTICATED
    DENIED = (403, 7)  # PERMISSION_DENIED
    NOT_FOUND = (404, 5)  # NOT_FOUND
    CONFLICT = (409, 6)  # ALREADY_EXISTS
    TOO_LARGE = (413, 3)  # INVALID_ARGUMENT
    UNPROCESSABLE = (422, 9)  # FAILED_PRECONDITION
    EXHAUSTED = (429, 8)  # RESOURCE_EXHAUSTED
    CANCELLED = (499, 1)  # CANCELLED
    INTERNAL = (500, 13)  # INTERNAL
    UNAVAILABLE = (503, 14)  # UNAVAILABLE
    DEADLINE = (504, 4)  # DEADLINE_EXCEEDED

    @property
    def http(self) -> int:
        return self.value[0]

    @property
    def grpc(self) -> int:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Code:
    """A stable name for one failure, `part.what`, never renamed once released."""

    name: str
    kind: Kind

    def __str__(self) -> str:
        return self.name


class RingfenceError(Exception):
    """A failure with a stable code.

    `message` says what failed and why, `hint` what to do next, `field` names the input at fault. None of them may
    hold a secret: they are shown to callers and written to logs.
    """

    def __init__(self, code: Code, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.hint = hint

    def __str__(self) -> str:
        where = f" ({self.field})" if self.field else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.code}{where}: {self.message}{hint}"


class UsageError(RingfenceError):
    """The caller of a command or an API used it in a way that cannot be meant."""


BAD_ARGUMENT = Code("usage.bad_argument", Kind.INVALID)
MISSING_EXTRA = Code("usage.missing_extra", Kind.UNAVAILABLE)
UNREADABLE_FILE = Code("usage.unreadable_file", Kind.NOT_FOUND)
INTERNAL = Code("internal.bug", Kind.INTERNAL)
