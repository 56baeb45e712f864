"""A real gateway with several fronts: one decision process behind them, and nothing left of them without it."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.agent.api.jobs import JobLimits
from ringfence.client import RefusedError
from ringfence.client.local import LocalInstallation
from ringfence.crypto.handshake import Initiator
from ringfence.plugin.api import SESSION_PURPOSE, SESSIONS_PATH
from tests.plugin.builtin.conftest import front_processes

FRONTS = 2


@pytest.fixture(scope="module")
def fronted(folder: Path) -> Iterator[LocalInstallation]:
    """An installation whose gateway has two fronts."""
    with LocalInstallation(folder / "state") as installation:
        gateway = installation.process("gateway")
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(20)
        with (installation.state / "gateway.toml").open("a") as file:
            file.write(f"\n[limits]\nworkers = {FRONTS}\n")
        installation.start("gateway")
        yield installation


def fronts(installation: LocalInstallation) -> list[int]:
    return front_processes(installation.process("gateway").pid)


def all_there(installation: LocalInstallation) -> Callable[[], bool]:
    return lambda: len(fronts(installation)) == FRONTS


def test_a_hello_is_accepted_once_by_all_fronts_together(
    fronted: LocalInstallation, until: Any, nothing: bytes, limits: JobLimits
) -> None:
    until(all_there(fronted), "all fronts are there")
    client, gateway = fronted.client(), fronted.keys["gateway"].public
    hello = Initiator.start(
        fronted.keys["client"], gateway, SESSION_PURPOSE, now=int(time.time()), random=secrets.token_bytes
    ).message
    first, second = fronts(fronted)
    answers = []
    for stopped in (second, first):
        os.kill(stopped, signal.SIGSTOP)
        try:
            answers.append(str(client.post(SESSIONS_PATH, hello, {}).status))
        except RefusedError as error:
            answers.append(error.code.name)
        finally:
            os.kill(stopped, signal.SIGCONT)
    assert answers == ["200", "identity.replayed"]
    # A session that one front opened is every front's.
    session = client.open_session()
    for stopped in (second, first):
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert session.submit(nothing, b"", limits=limits).receipt.code == ""
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_a_job_goes_on_while_a_front_that_has_not_got_it_dies(
    fronted: LocalInstallation, until: Any, nothing: bytes, limits: JobLimits
) -> None:
    until(all_there(fronted), "all fronts are there")
    session = fronted.client().open_session()
    victim, _ = fronts(fronted)
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in fronts(fronted) and all_there(fronted)(), "the front is started again")
    assert session.submit(nothing, b"", limits=limits).receipt.code == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_front_outlives_the_decision_process(
    fronted: LocalInstallation, until: Any, alive: Any, number: signal.Signals, verify_log: Any
) -> None:
    until(all_there(fronted), "all fronts are there")
    there = set(fronts(fronted))
    process = fronted.process("gateway")
    process.send_signal(number)
    assert process.wait(20) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    until(lambda: not alive(there), "the fronts have ended")
    fronted.start("gateway")
    verify_log(fronted, "gateway")
