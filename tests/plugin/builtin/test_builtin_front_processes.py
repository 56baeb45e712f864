"""Real front processes before a gate in this one: they serve side by side, die alone, and never decide."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ringfence.plugin.api import HEALTH_PATH, JOBS_PATH, SESSIONS_PATH
from ringfence.plugin.builtin.front.__main__ import OWN_FILES
from ringfence.plugin.builtin.front.errors import FRONT_NOT_STARTED, FrontError
from tests.plugin.builtin.conftest import FakeGate, until


async def test_fronts_serve_side_by_side(run_fronts: Any) -> None:
    gate = FakeGate()
    async with run_fronts(gate) as running:
        for front in running.fronts:
            with running.only(front):
                assert await running.ask(HEALTH_PATH) == (204, b"")
                assert await running.ask("/published") == (200, b"{}")
                assert await running.ask(SESSIONS_PATH, b"hello") == (200, b"reply to hello")
        gate.hold = asyncio.Event()
        asking = []
        for front in running.fronts:
            with running.only(front):
                asking += [asyncio.create_task(running.ask(SESSIONS_PATH, b"x")) for _ in range(3)]
                await until(partial(gate.was_asked, 2 + len(asking)))
        gate.hold.set()
        assert await asyncio.gather(*asking) == [(200, b"reply to x")] * 6
        assert len(running.fronts) == 2
        assert running.told == []
    assert running.fronts == []


async def test_a_request_is_accepted_once_whichever_front_it_comes_to(run_fronts: Any, world: Any) -> None:
    async with run_fronts(world.gate) as running:
        first, second = running.fronts
        headers = world.signed()
        with running.only(first):
            status, _ = await running.ask(JOBS_PATH, world.job, headers)
        assert status == 200
        with running.only(second):
            status, problem = await running.ask(JOBS_PATH, world.job, headers)
        assert status == 409
        assert b'"integrity.replayed"' in problem


async def test_a_front_that_is_killed_takes_its_own_requests_along_and_is_started_again(run_fronts: Any) -> None:
    gate = FakeGate(hold=asyncio.Event())
    async with run_fronts(gate) as running:
        victim, other = running.fronts
        with running.only(other):
            living = asyncio.create_task(running.ask(SESSIONS_PATH, b"lives"))
            await until(lambda: len(gate.asked) == 1)
        with running.only(victim):
            dying = asyncio.create_task(running.ask(SESSIONS_PATH, b"dies"))
            await until(lambda: len(gate.asked) == 2)
            os.kill(victim, signal.SIGKILL)
            assert await dying == (0, b"")
            await until(lambda: gate.cancelled == 1)
        assert gate.hold is not None
        gate.hold.set()
        assert await living == (200, b"reply to lives")
        await until(lambda: len(running.fronts) == 2)
        assert victim not in running.fronts
        assert len(running.told) == 1
        assert "ended by signal 9" in running.told[0]
        (anew,) = set(running.fronts) - {other}
        with running.only(anew):
            assert await running.ask(SESSIONS_PATH, b"again") == (200, b"reply to again")


async def test_a_front_that_keeps_dying_is_started_ever_later(run_fronts: Any) -> None:
    async with run_fronts(FakeGate(), workers=1) as running:
        for round_ in range(1, 4):
            await until(lambda: len(running.fronts) == 1)
            os.kill(running.fronts[0], signal.SIGKILL)
            await until(partial(running.has_told, round_))
    pauses = [line.rsplit(" ", 2)[1] for line in running.told]
    assert pauses == ["0.05", "0.1", "0.2"]


async def test_a_caller_that_goes_away_ends_its_work(run_fronts: Any) -> None:
    gate = FakeGate(hold=asyncio.Event())
    async with run_fronts(gate) as running:
        asking = asyncio.create_task(running.ask(SESSIONS_PATH, b"x"))
        await until(lambda: gate.asked)
        asking.cancel()
        await until(lambda: gate.cancelled == 1)


async def test_requests_under_way_end_before_the_fronts_do(run_fronts: Any) -> None:
    gate = FakeGate(hold=asyncio.Event())
    async with run_fronts(gate) as running:
        asking = asyncio.create_task(running.ask(SESSIONS_PATH, b"x"))
        await until(lambda: gate.asked)
        assert gate.hold is not None
        asyncio.get_running_loop().call_later(0.3, gate.hold.set)
    assert await asking == (200, b"reply to x")


async def test_a_front_inherits_two_sockets_and_nothing_that_is_secret(
    run_fronts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_TEST_SECRET", "secret")
    seen = tmp_path / "seen"
    look = (
        "import json, os, sys\n"
        "def there(number):\n"
        "    try:\n"
        "        return os.fstat(number) is not None\n"
        "    except OSError:\n"
        "        return False\n"
        "found = [number for number in range(3, 1000) if there(number)]\n"
        f"json.dump([found, dict(os.environ), sys.argv], open({str(seen)!r}, 'w'))\n"
    )
    with pytest.raises(FrontError):
        async with run_fronts(FakeGate(), workers=1, command=(sys.executable, "-I", "-c", look)):
            raise AssertionError
    descriptors, environment, arguments = json.loads(seen.read_text())
    assert arguments[1::2] == ["--channel", "--listener", "--parent"]
    assert sorted(descriptors) == sorted(int(number) for number in arguments[2:5:2])
    # Python itself sets the one where there is none.
    assert set(environment) <= {"LC_CTYPE"}


async def test_a_front_is_hardened(run_fronts: Any) -> None:
    async with run_fronts(FakeGate(), workers=1) as running:
        process = Path(f"/proc/{running.fronts[0]}")
        assert f"Max open files            {64 + OWN_FILES}" in (process / "limits").read_text()
        assert "NoNewPrivs:\t1" in (process / "status").read_text()


async def test_fronts_that_cannot_start(run_fronts: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    gate = FakeGate()
    with pytest.raises(FrontError) as caught:
        async with run_fronts(gate, workers=1, command=("/bin/false",)):
            raise AssertionError
    assert caught.value.code == FRONT_NOT_STARTED
    with pytest.raises(FrontError):
        async with run_fronts(gate, workers=2, command=(str(tmp_path / "none"),)):
            raise AssertionError
    assert time.monotonic() - began < 5
