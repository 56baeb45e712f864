"""The live feed: bounded queues, gaps that are told, and a socket for the gateway's owner alone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.frame import Parser
from ringfence.plugin.threats import watch_command
from ringfence.plugin.threats.errors import WatchError
from ringfence.plugin.threats.events import Pattern, Reaction, ThreatEvent
from ringfence.plugin.threats.feed import may_watch, serve_feed
from ringfence.plugin.threats.watch import (
    MAX_LINE,
    Broadcast,
    DecisionSeen,
    Event,
    Gap,
    SessionEnded,
    ThreatSeen,
    decode_event,
)

NOW = 1_790_326_800
DECISION = DecisionSeen(
    NOW, "d1", "request", "deny", "policy.denied", "alice", "s1", "SubmitJob", "192.0.2.1", risk=48, duration_us=12
)
THREAT = ThreatSeen.of(ThreatEvent(Pattern.REFUSALS, "source", "192.0.2.66", 20, Reaction.LOCK_OUT, NOW + 30, NOW))
ENDED = SessionEnded(NOW, "s1", "alice", "session.revoked")


def lines(taken: bytes) -> list[Event]:
    return [decode_event(line) for line in taken.splitlines()]


def test_every_watcher_gets_what_happens_from_when_it_joined() -> None:
    broadcast = Broadcast()
    assert broadcast.publish(DECISION) is False
    first = broadcast.join()
    assert first is not None
    assert broadcast.publish(THREAT) is True
    second = broadcast.join()
    assert second is not None
    broadcast.publish(ENDED)
    assert lines(first.take()) == [THREAT, ENDED]
    assert lines(second.take()) == [ENDED]
    assert first.take() == b""
    broadcast.leave(first)
    broadcast.publish(DECISION)
    assert first.take() == b""
    assert lines(second.take()) == [DECISION]


def test_a_slow_watcher_misses_events_and_is_told_how_many() -> None:
    broadcast = Broadcast(capacity=3)
    slow = broadcast.join()
    assert slow is not None
    for _ in range(10):
        broadcast.publish(DECISION)
    assert lines(slow.take()) == [DECISION, DECISION, DECISION, Gap(7)]
    broadcast.publish(ENDED)
    assert lines(slow.take()) == [ENDED]


@given(st.lists(st.booleans(), max_size=60))
def test_nothing_is_lost_without_being_counted(steps: list[bool]) -> None:
    broadcast = Broadcast(capacity=4)
    watcher = broadcast.join()
    assert watcher is not None
    published, got = 0, 0
    for publishes in [*steps, False]:
        if publishes:
            broadcast.publish(ENDED)
            published += 1
        else:
            got += sum(event.missed if isinstance(event, Gap) else 1 for event in lines(watcher.take()))
    assert got == published


def test_there_are_no_more_watchers_than_allowed() -> None:
    broadcast = Broadcast(watchers=1)
    first = broadcast.join()
    assert first is not None
    assert broadcast.join() is None
    broadcast.leave(first)
    assert broadcast.join() is not None


@pytest.mark.parametrize("line", [b"", b"{}", b'{"event":"other"}', b"\xff", b"[" * 100_000, b'{"event":"gap"}'])
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(WatchError, match=r"threat\.watch_malformed"):
        decode_event(line)


def test_only_the_own_user_and_root_may_watch() -> None:
    assert may_watch(os.geteuid())
    assert may_watch(0)
    assert not may_watch(os.geteuid() + 1)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never held")


async def watched(broadcast: Broadcast, path: Path, arguments: list[str]) -> int:
    """What the command returns that watches while three events are published over and over."""
    parser = Parser()
    watch_command.configure(parser)
    parsed = parser.parse_args(["--socket", str(path), *arguments], None)
    parsed.json = getattr(parsed, "json", False)
    async with serve_feed(broadcast, path):
        task = asyncio.create_task(asyncio.to_thread(watch_command.run, parsed))
        await until(lambda: broadcast.publish(DECISION))
        broadcast.publish(THREAT)
        broadcast.publish(ENDED)
        async with asyncio.timeout(10):
            return await task


async def test_the_command_prints_the_feed_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await watched(Broadcast(), tmp_path / "watch.sock", ["--limit", "3"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("09:00:00 deny policy.denied")
    assert "risk 48" in shown[0]
    assert shown[1] == ("09:00:00 THREAT refusal-burst by the source 192.0.2.66, 20 times: lock-out until 09:00:30")
    assert shown[2] == "09:00:00 session s1 of alice ended: session.revoked"


async def test_the_command_prints_json_and_what_is_asked_for_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await watched(Broadcast(), tmp_path / "watch.sock", ["--limit", "1", "--only", "threat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "event": "threat",
        "at": NOW,
        "pattern": "refusal-burst",
        "against": "source",
        "subject": "192.0.2.66",
        "count": 20,
        "reaction": "lock-out",
        "until": NOW + 30,
    }


def test_a_name_that_somebody_chose_drives_no_terminal() -> None:
    assert "\x1b" not in watch_command.readable(SessionEnded(NOW, "s1", "\x1b[2J", ""))
    assert "5 events" in watch_command.readable(Gap(5))
    assert watch_command.readable(SessionEnded(2**62, "s1", "alice")).startswith(str(2**62))


async def test_the_socket_is_its_owners_and_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "watch.sock"
    async with serve_feed(Broadcast(), path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    with pytest.raises(WatchError, match=r"threat\.watch_unavailable"):
        list(watch_command.feed_lines(path))
    with pytest.raises(WatchError, match=r"threat\.watch_unavailable"):
        async with serve_feed(Broadcast(), tmp_path / "missing" / "watch.sock"):
            pass


async def test_one_watcher_too_many_is_turned_away_and_the_next_is_served_once_there_is_room(tmp_path: Path) -> None:
    path, broadcast = tmp_path / "watch.sock", Broadcast(watchers=1)
    async with serve_feed(broadcast, path):
        reader, writer = await asyncio.open_unix_connection(str(path))
        await until(lambda: broadcast.publish(ENDED))
        assert decode_event((await reader.readline()).rstrip()) == ENDED
        other, second = await asyncio.open_unix_connection(str(path))
        async with asyncio.timeout(5):
            assert await _ended(other)
        second.close()
        writer.close()
        await until(lambda: broadcast.publish(ENDED) is False)


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionResetError:
        return True


async def test_a_watcher_that_goes_away_leaves_its_place_although_nothing_happens(tmp_path: Path) -> None:
    path, broadcast = tmp_path / "watch.sock", Broadcast(watchers=1)
    async with serve_feed(broadcast, path):
        _, writer = await asyncio.open_unix_connection(str(path))
        await until(lambda: len(broadcast) == 1)
        writer.close()
        await until(lambda: len(broadcast) == 0)


async def test_a_watcher_that_takes_nothing_is_dropped_and_holds_nobody_up(
    tmp_path: Path,
) -> None:
    path, broadcast = tmp_path / "watch.sock", Broadcast(capacity=100_000)
    async with serve_feed(broadcast, path, slow_s=0.2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stuck:
            stuck.connect(str(path))
            async with asyncio.timeout(10):
                await until(lambda: broadcast.publish(ENDED))
                while broadcast.publish(ENDED):
                    for _ in range(1000):
                        broadcast.publish(DECISION)
                    await asyncio.sleep(0.01)


def serving(path: Path, sent: bytes) -> Callable[[], None]:
    """A server at `path` that sends these bytes to one peer and ends; the function waits for it."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        with listening:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(sent)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread.join


def test_a_feed_without_end_of_line_takes_no_memory(tmp_path: Path) -> None:
    joined = serving(tmp_path / "watch.sock", b"x" * 20_000)
    (line,) = watch_command.feed_lines(tmp_path / "watch.sock")
    assert MAX_LINE < len(line) <= 65_536 + MAX_LINE
    joined()
