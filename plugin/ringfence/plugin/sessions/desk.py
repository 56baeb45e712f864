"""The desk of the sessions: what an operator's command and the gateway say to each other over a Unix socket. Sans-IO.

Each message is a frame, 4 bytes of length (big endian) and a body of msgpack, and each question has one answer. A
session is shown by `SessionView`, which has no key.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final

import msgspec

from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.errors import DESK_MALFORMED
from ringfence.plugin.sessions.port import Selection, Session
from ringfence.plugin.sessions.revocations import Of

QUESTION_BYTES: Final = 64 * 1024
ANSWER_BYTES: Final = 4 << 20
PAGE: Final = 64
_LENGTH: Final = struct.Struct(">I")

Text = Annotated[str, msgspec.Meta(max_length=4096)]


class List(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list"):
    """Asks for the live sessions for which every field that is not empty agrees, from `start` on."""

    session: Text = ""
    principal: Text = ""
    host: Text = ""
    bundle: Text = ""
    start: Annotated[int, msgspec.Meta(ge=0, le=2**32)] = 0

    @property
    def selection(self) -> Selection:
        """The sessions that are asked for, `principal` as it was written."""
        return Selection(self.session, self.principal, self.host, self.bundle)


class Revoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="revoke"):
    """Has the session `value`, or all sessions of a principal, host or bundle, ended for good."""

    of: Of
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class SessionView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session as an operator sees it. Times in seconds since the epoch."""

    session: str
    principal: str
    groups: tuple[str, ...]
    tenant: str
    host: str
    status: str
    factors: tuple[str, ...]
    channel_bound: bool
    source: str
    bundle: str
    opened_at: int
    expires_at: int
    idle_s: int


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="page"):
    """At most `PAGE` sessions, perhaps none; `start` is where to go on, -1 at the end."""

    sessions: tuple[SessionView, ...]
    start: int


class Revoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="revoked"):
    """The revocation is durable; so many live sessions have ended."""

    sessions: int


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refused"):
    """Why there is no other answer: an error's code and texts."""

    code: str
    message: str
    hint: str


Question = List | Revoke
Answer = Page | Revoked | Refused

_QUESTIONS: Final[msgspec.msgpack.Decoder[Question]] = msgspec.msgpack.Decoder(List | Revoke)
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Page | Revoked | Refused)


class Frames:
    """Takes bodies out of bytes that come in pieces; holds no more than one frame of `limit` bytes and a piece."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises `session.desk_malformed` for one that is longer than the limit."""
        self._held += data
        bodies = []
        while len(self._held) >= _LENGTH.size:
            length = _LENGTH.unpack_from(self._held)[0]
            if length > self._limit:
                raise _malformed(f"a message of {length} bytes")
            if len(self._held) < _LENGTH.size + length:
                break
            bodies.append(bytes(self._held[_LENGTH.size : _LENGTH.size + length]))
            del self._held[: _LENGTH.size + length]
        return bodies


def encode(message: Question | Answer) -> bytes:
    """A message as one frame."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def decode_question(body: bytes) -> Question:
    """The question in a frame. Raises `session.desk_malformed`."""
    try:
        return _QUESTIONS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed("something that is no question") from error


def decode_answer(body: bytes) -> Answer:
    """The answer in a frame. Raises `session.desk_malformed`."""
    try:
        return _ANSWERS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed("something that is no answer") from error


def view(session: Session) -> SessionView:
    """What an operator sees of a session."""
    return SessionView(
        session=session.name,
        principal=session.principal,
        groups=session.groups,
        tenant=session.tenant,
        host=session.host,
        status=session.status,
        factors=tuple(factor for factor, _ in session.factors),
        channel_bound=bool(session.thumbprint),
        source=session.source,
        bundle=session.bundle_digest,
        opened_at=session.opened_at,
        expires_at=session.expires_at,
        idle_s=session.idle_s,
    )


def _malformed(what: str) -> GateError:
    return GateError(
        DESK_MALFORMED,
        f"The other side of the sessions' socket sent {what}.",
        hint="Use the `ringfence` command of the gateway's own version.",
    )
