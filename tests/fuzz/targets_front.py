"""The decoders between a front and the decision process, in the form of `targets`."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence import httpsig
from ringfence.plugin.builtin.front import messages
from ringfence.plugin.builtin.front.frames import Assembler, Bounds, Message, cancel, frames
from ringfence.plugin.errors import POLICY_DENIED, StepUpError
from ringfence.plugin.hosts.port import Inbound, Unseen
from tests.fuzz.target import Target

_BOUNDS = Bounds(calls=4, total=4096, body=2048)
_INBOUND = Inbound(httpsig.Target("POST", "localhost", "/v1/jobs"), (("host", "localhost"),), "unix", "", b"body")
_ASKED = messages.asked(_INBOUND)
_QUESTIONS = tuple(
    messages.encode(question)
    for question in (
        messages.Opening("unix"),
        messages.Screening(_ASKED),
        messages.Submission(_ASKED),
        messages.Proving(_ASKED),
    )
)
_REPLIES = tuple(
    messages.encode(reply)
    for reply in (
        messages.Done(),
        messages.Proved(("svid",)),
        messages.refused(StepUpError(POLICY_DENIED, "More.", missing=("svid",))),
    )
)
_SETUP = messages.encode(messages.Setup(1, 1.0, 1, 1, 1, 1, 1.0, 1.0, 1, 1, {"/path": b"{}"}))


def _stream(data: bytes) -> None:
    # In two pieces, so that a frame may be cut anywhere.
    assembler = Assembler(_BOUNDS, lambda _call: True)
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        for event in assembler.feed(piece):
            if isinstance(event, Message) and event.call % 2:
                assembler.forget(event.call)
        assert assembler.held <= _BOUNDS.total


def _question(data: bytes) -> None:
    question = messages.decode_question(data)
    if not isinstance(question, messages.Opening):
        messages.inbound(question.asked, Unseen.HIDDEN)


def _reply(data: bytes) -> None:
    reply = messages.decode_reply(data)
    if isinstance(reply, messages.Refused):
        messages.refused(messages.refusal(reply))


TARGETS: Mapping[str, Target] = {
    "plugin.front.frames": Target(_stream, (b"".join([*frames(1, b"head", b"body"), *frames(2, b"head"), cancel(2)]),)),
    "plugin.front.question": Target(_question, _QUESTIONS),
    "plugin.front.reply": Target(_reply, _REPLIES),
    "plugin.front.setup": Target(messages.decode_setup, (_SETUP,)),
}
