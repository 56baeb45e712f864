"""The desk: an operator lists and revokes sessions over a socket, and nobody else gets a word in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.audit import AuditError, Record
from ringfence.audit import Session as SessionRecord
from ringfence.audit.errors import UNAVAILABLE
from ringfence.errors import UsageError
from ringfence.frame import Parser
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions import desk, revoke_cli, sessions_cli
from ringfence.plugin.sessions.desk_client import Desk
from ringfence.plugin.sessions.desk_server import CONNECTIONS, AdminServer
from ringfence.plugin.sessions.errors import PRINCIPAL_UNKNOWN
from ringfence.plugin.sessions.port import Selection, Session
from ringfence.plugin.sessions.revocations import History, Of, Revocations, begun_record, taken_record
from ringfence.plugin.sessions.revoking import Revoker
from ringfence.plugin.sessions.store import MemorySessions

NOW = 1_800_000_000
KEY = b"a session's key, of 32 bytes ..."


def session(number: int) -> Session:
    return Session(
        f"{number:032x}", f"p{number % 3}", ("g",), "h", "affirming", "", "b", NOW, NOW + 100, 50, KEY, (("mtls", 0),)
    )


def keys_of(written: str) -> tuple[str, ...]:
    """As a trust list gives them: "changing" has two keys, "nobody" none."""
    if written == "nobody":
        raise GateError(PRINCIPAL_UNKNOWN, "No client is pinned by that name.")
    return ("p0", "p1") if written == "changing" else (written,)


class Running:
    """A gateway's desk on a thread of its own, over 500 sessions."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "admin.sock"
        self.store = MemorySessions(1000)
        for number in range(500):
            self.store.add(session(number), now=NOW)
        self.records: list[Record] = []
        self.ended: list[Session] = []
        self.log_fails = False
        self.revocations = Revocations(900)
        self.revoker = Revoker(
            self.store, self.revocations, journal=self._journal, ended=self.ended.append, now=lambda: NOW
        )

    async def _journal(self, record: Record) -> None:
        if self.log_fails:
            raise AuditError(UNAVAILABLE, "The log cannot be written.")
        self.records.append(record)

    async def serve(self, ready: Callable[[], None], stop: Callable[[], Awaitable[object]]) -> None:
        async with AdminServer(self.store, self.revoker.revoke, principals=keys_of, now=lambda: NOW).serve(self.path):
            ready()
            await stop()


@contextmanager
def started(folder: Path) -> Iterator[Running]:
    running = Running(folder)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(running.serve(ready.set, stop.wait)))
    thread.start()
    try:
        assert ready.wait(10)
        yield running
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        assert not running.path.exists()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with started(tmp_path) as made:
        yield made


def test_all_sessions_are_listed_page_by_page(running: Running) -> None:
    with Desk(running.path) as asked:
        names = [view.session for view in asked.sessions(desk.List())]
        assert sorted(names) == [f"{number:032x}" for number in range(500)]
        some = list(asked.sessions(desk.List(principal="p1", host="h")))
        assert {view.principal for view in some} == {"p1"}
        assert len(some) == 167
        assert list(asked.sessions(desk.List(host="another"))) == []


def test_a_key_is_never_sent(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(running.path))
        raw.sendall(desk.encode(desk.List()))
        frames = desk.Frames(desk.ANSWER_BYTES)
        bodies: list[bytes] = []
        while not bodies:
            bodies = frames.feed(raw.recv(65536))
    assert KEY not in bodies[0]


CASES: list[tuple[Of, str, int]] = [
    ("session", f"{7:032x}", 1),
    ("session", "unknown", 0),
    ("principal", "p1", 167),
    ("host", "h", 500),
    ("bundle", "b", 500),
    ("bundle", "another", 0),
]


@pytest.mark.parametrize(("of", "value", "count"), CASES)
def test_a_revocation_ends_sessions_and_is_durable(running: Running, of: Of, value: str, count: int) -> None:
    with Desk(running.path) as asked:
        assert asked.revoke(of, value) == count
    assert len(running.store) == 500 - count
    assert len(running.ended) == count
    assert [record.kind for record in running.records] == ["session"]


def test_a_session_that_is_opened_meanwhile_is_refused(running: Running) -> None:
    with Desk(running.path) as asked:
        asked.revoke("principal", "p1")
    with pytest.raises(GateError, match=r"session\.revoked"):
        running.revocations.check(session(1))


def test_a_revocation_that_is_not_durable_is_not_acknowledged(running: Running) -> None:
    running.log_fails = True
    with Desk(running.path) as asked, pytest.raises(GateError, match=r"audit\.unavailable"):
        asked.revoke("session", f"{7:032x}")
    # It has ended all the same.
    assert len(running.store) == 499


@pytest.mark.parametrize("bad", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\0", desk.encode(desk.Revoked(1))])
def test_what_is_no_question_is_refused_and_the_connection_closed(running: Running, bad: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(running.path))
        raw.sendall(bad)
        received = b""
        while data := raw.recv(65536):
            received += data
    (body,) = desk.Frames(desk.ANSWER_BYTES).feed(received)
    answer = desk.decode_answer(body)
    assert isinstance(answer, desk.Refused)
    assert answer.code == "session.desk_malformed"


def test_connections_are_bounded(running: Running) -> None:
    held = [Desk(running.path) for _ in range(CONNECTIONS)]
    for asked in held:
        assert len(list(asked.sessions(desk.List(session=f"{1:032x}")))) == 1
    with Desk(running.path) as one_more, pytest.raises(GateError, match=r"session\.desk_unavailable"):
        list(one_more.sessions(desk.List()))
    for asked in held:
        asked.__exit__(None, None, None)


def test_a_name_stands_for_every_key_that_it_has(running: Running) -> None:
    with Desk(running.path) as asked:
        assert {view.principal for view in asked.sessions(desk.List(principal="changing"))} == {"p0", "p1"}
        assert asked.revoke("principal", "changing") == 167 + 167
        assert {view.principal for view in asked.sessions(desk.List())} == {"p2"}
    assert [record.principal for record in running.records if isinstance(record, SessionRecord)] == ["p0", "p1"]


@pytest.mark.parametrize("question", [desk.List(principal="nobody"), desk.Revoke("principal", "nobody")])
def test_a_name_that_is_nobodys_is_an_error(running: Running, question: desk.List | desk.Revoke) -> None:
    def ask(asked: Desk) -> object:
        if isinstance(question, desk.List):
            return list(asked.sessions(question))
        return asked.revoke(question.of, question.value)

    with Desk(running.path) as asked, pytest.raises(GateError, match=r"session\.principal_unknown"):
        ask(asked)
    assert (running.records, running.ended) == ([], [])


def test_only_this_user_and_root_are_served(running: Running) -> None:
    assert running.path.stat().st_mode & 0o077 == 0
    server = AdminServer(running.store, running.revoker.revoke, principals=keys_of, now=lambda: NOW)

    class Peer(socket.socket):
        """A connection of somebody else."""

        def getsockopt(self, *_: Any) -> Any:
            return (1).to_bytes(4, "little") + (os.geteuid() + 4321).to_bytes(4, "little") + bytes(4)

    with Peer(socket.AF_UNIX) as peer:
        refusal = server.unwelcome(peer)
    assert refusal is not None
    assert refusal.code.name == "session.desk_refused"


def command(module: Any, *words: str) -> int:
    parser = Parser()
    module.configure(parser)
    arguments = parser.parse_args(words)
    arguments.json = getattr(arguments, "json", False)
    status: int = module.run(arguments)
    return status


def test_the_commands(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(running.path)
    assert command(sessions_cli, "--socket", path, "--principal", "p1", "--limit", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["session", "principal", "host", "status", "factors", "bound", "source", "expires"]
    assert len(lines) == 3
    assert command(sessions_cli, "--socket", path, "--session", f"{7:032x}", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)["sessions"]
    assert (shown["session"], shown["factors"], shown["expires_at"]) == (f"{7:032x}", ["mtls"], NOW + 100)
    assert command(revoke_cli, "--socket", path, "--session", f"{7:032x}") == 0
    assert capsys.readouterr().out == "revoked; 1 live session ended\n"
    assert command(revoke_cli, "--socket", path, "--principal", "p1", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"revoked": {"of": "principal", "value": "p1", "sessions": 166}}


def test_commands_that_cannot_be_meant(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none.sock")
    with pytest.raises(GateError, match=r"session\.desk_unavailable"):
        command(sessions_cli, "--socket", nowhere)
    for words in (["--limit", "0"],):
        with pytest.raises(UsageError):
            command(sessions_cli, "--socket", nowhere, *words)
    for words in ([], ["--principal", ""], ["--principal", "p", "--host", "h"]):
        with pytest.raises(UsageError):
            command(revoke_cli, "--socket", nowhere, *words)


@given(st.lists(st.binary(max_size=64), max_size=8), st.integers(1, 50))
def test_frames_come_back_however_they_are_cut(bodies: list[bytes], cut: int) -> None:
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    frames = desk.Frames(64)
    found = [body for start in range(0, len(data), cut) for body in frames.feed(data[start : start + cut])]
    assert found == bodies
    with pytest.raises(GateError, match=r"session\.desk_malformed"):
        frames.feed((65).to_bytes(4, "big"))


@example(desk.encode(desk.List("principal"))[4:].replace(b"i", b"\xc2"), desk.decode_question)
@example(desk.encode(desk.Refused("code", "why", ""))[4:].replace(b"d", b"\xc2"), desk.decode_answer)
@given(st.binary(max_size=200), st.sampled_from([desk.decode_question, desk.decode_answer]))
def test_no_bytes_raise_anything_else(data: bytes, decode: Callable[[bytes], object]) -> None:
    with contextlib.suppress(GateError):
        decode(data)


def test_a_clock_that_went_back_spares_no_session(tmp_path: Path) -> None:
    running = Running(tmp_path)
    late = msgspec.structs.replace(session(7), name="f" * 32, opened_at=NOW + 100, expires_at=NOW + 200)
    running.store.add(late, now=NOW)
    before = sum(1 for _ in running.store.select(Selection(principal=late.principal)))
    assert asyncio.run(running.revoker.revoke("principal", late.principal)) == before
    # Nor does a snapshot from before bring it back.
    history = History()
    for record in (begun_record(1), taken_record(1, "a" * 64), *running.records):
        history.see(record)
    assert not history.revives(late)
