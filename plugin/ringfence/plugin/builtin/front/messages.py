"""What a front asks and what it is answered, as the heads of messages in msgpack. Pure.

A refusal crosses whole: its code, its texts and what it carries for a caller, so that a front answers as the decision
process would have answered itself, to the byte.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ringfence import httpsig
from ringfence.agent.api.remote import Finished
from ringfence.errors import Code, Kind, RingfenceError
from ringfence.plugin.api import JobAnswer, StageView
from ringfence.plugin.builtin.front.errors import FRONT_MALFORMED, FrontError
from ringfence.plugin.errors import GateError, LimitedError, StepUpError
from ringfence.plugin.hosts.port import Inbound, Unseen
from ringfence.plugin.settling import RefusedError

MESSAGE_LIMIT: Final = 128 * 1024 * 1024
"""Longest answer in bytes: as long as the agent's own may be (`ringfence.agent.api.remote`)."""


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="open", tag_field="ask"):
    """Open a session; the body is the hello."""

    source: str


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A request as it came in, without its body."""

    method: str
    authority: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    source: str


class Screening(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="screen", tag_field="ask"):
    """Screen a job's header."""

    asked: Asked


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="submit", tag_field="ask"):
    """Submit a job; the body is its body."""

    asked: Asked


class Proving(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="factors", tag_field="ask"):
    """Add factors to a session; the body is the evidence."""

    asked: Asked


Question = Opening | Screening | Submission | Proving


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="done", tag_field="is"):
    """Nothing was refused; the body is a handshake's reply, or empty."""


class Worked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="job", tag_field="is"):
    """A job has finished. Its output is the body, and empty here."""

    job: JobAnswer


class Proved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="factors", tag_field="is"):
    """The session's factors."""

    factors: tuple[str, ...]


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="no", tag_field="is"):
    """A refusal: `missing` of one that asks for factors, `retry_after_s` of one for now, a receipt where there is."""

    code: str
    kind: str
    message: str
    field: str = ""
    hint: str = ""
    missing: tuple[str, ...] | None = None
    retry_after_s: int | None = None
    decision_id: str = ""
    trace: tuple[StageView, ...] = ()
    receipt: bytes = b""
    signature: bytes = b""


Reply = Done | Worked | Proved | Refused


class Setup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a front is told when it starts: its share of the gateway's limits, and the documents that anybody may GET.

    Times are in seconds, sizes in bytes; `calls` and `calls_bytes` bound what it may have asked at a time.
    """

    connections: int
    header_timeout_s: float
    jobs: int
    openings: int
    body_bytes: int
    bodies_bytes: int
    body_timeout_s: float
    answer_timeout_s: float
    calls: int
    calls_bytes: int
    documents: dict[str, bytes] = {}


_QUESTIONS: Final = msgspec.msgpack.Decoder[Question](Question)
_REPLIES: Final = msgspec.msgpack.Decoder[Reply](Reply)


def encode(head: Question | Reply | Setup) -> bytes:
    """The head of a message."""
    return msgspec.msgpack.encode(head)


def decode_question(head: bytes) -> Question:
    """What a front asks. Raises `FrontError` front.malformed."""
    try:
        question: Question = _QUESTIONS.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _malformed("A front's question") from None
    return question


def decode_reply(head: bytes) -> Reply:
    """What the decision process answers. Raises `FrontError` front.malformed."""
    try:
        reply: Reply = _REPLIES.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _malformed("The decision process's answer") from None
    return reply


def decode_setup(head: bytes) -> Setup:
    """What the decision process sets up. Raises `FrontError` front.malformed."""
    try:
        return msgspec.msgpack.decode(head, type=Setup)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _malformed("What the decision process sets up") from None


def asked(inbound: Inbound) -> Asked:
    """A request as it goes over, without its body."""
    target = inbound.target
    return Asked(target.method, target.authority, target.path, target.query, tuple(inbound.headers), inbound.source)


def inbound(question: Asked, body: bytes | Unseen) -> Inbound:
    """The request that a front describes, with `body`."""
    target = httpsig.Target(question.method, question.authority, question.path, question.query)
    return Inbound(target, question.headers, question.source, "", body)


def refused(error: RingfenceError | RefusedError) -> Refused:
    """A refusal as it goes over."""
    whole = error if isinstance(error, RefusedError) else RefusedError(error)
    cause, finished = whole.error, whole.finished
    return Refused(
        code=cause.code.name,
        kind=cause.code.kind.name,
        message=cause.message,
        field=cause.field,
        hint=cause.hint,
        missing=cause.missing if isinstance(cause, StepUpError) else None,
        retry_after_s=cause.retry_after_s if isinstance(cause, LimitedError) else None,
        decision_id=whole.decision_id,
        trace=whole.trace,
        receipt=finished.receipt if finished else b"",
        signature=finished.signature if finished else b"",
    )


def refusal(reply: Refused) -> RefusedError:
    """The refusal that came over. A kind that this version does not know counts as an internal one."""
    code = Code(reply.code, Kind.__members__.get(reply.kind, Kind.INTERNAL))
    texts = {"field": reply.field, "hint": reply.hint}
    error: GateError
    if reply.missing is not None:
        error = StepUpError(code, reply.message, **texts, missing=reply.missing)
    elif reply.retry_after_s is not None:
        error = LimitedError(code, reply.message, **texts, retry_after_s=reply.retry_after_s)
    else:
        error = GateError(code, reply.message, **texts)
    receipt = reply.receipt or reply.signature
    finished = Finished(b"", reply.receipt, reply.signature, error) if receipt else None
    return RefusedError(error, reply.decision_id, reply.trace, finished)


def _malformed(what: str) -> FrontError:
    return FrontError(FRONT_MALFORMED, f"{what} is none that this version knows.")
