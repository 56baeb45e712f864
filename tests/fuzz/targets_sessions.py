"""The decoders of sessions that read untrusted bytes, for `targets.TARGETS`: a file, and a socket's two sides."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.plugin.sessions import desk
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.sessions.snapshot import Header, open_snapshot, seal_snapshot
from ringfence.plugin.sessions.store import MemorySessions
from tests.fuzz.target import Target

_KEY = bytes(32)
_SESSION = Session("a" * 32, "p", ("g",), "h", "affirming", "", "", 1, 100, 50, bytes(32), (("mtls", 0),))


def _sealed() -> bytes:
    store = MemorySessions(1)
    store.add(_SESSION, now=1)
    return b"".join(seal_snapshot(store, Header(1, "g", 1, bytes(32)), _KEY))


def _frames(data: bytes) -> None:
    frames = desk.Frames(256)
    for start in range(0, len(data), 7):
        for body in frames.feed(data[start : start + 7]):
            desk.decode_question(body)


TARGETS: Mapping[str, Target] = {
    "plugin.sessions.answer": Target(desk.decode_answer, (desk.encode(desk.Page((desk.view(_SESSION),), -1))[4:],)),
    "plugin.sessions.frames": Target(_frames, (desk.encode(desk.List()) + desk.encode(desk.Revoke("host", "h")),)),
    "plugin.sessions.question": Target(desk.decode_question, (desk.encode(desk.List(principal="p"))[4:],)),
    "plugin.sessions.snapshot": Target(
        lambda data: list(open_snapshot([data], gateway="g", generation=1, key=_KEY)),
        (_sealed(),),
    ),
}
