"""Compute units: twice the units are about twice the thread time under contention, and cannot be taken back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.confine.shares import ALL, cpu_weight, niceness

UNITS = st.integers(1, ALL)

# Two of them at a time on one processor, for one second; each says how many times it went round.
CONTENDER = """
import os, resource, sys, time
from ringfence.agent.confine import shares
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
os.sched_setaffinity(0, {int(sys.argv[2])})
shares.take(int(sys.argv[1]))
print("ready", flush=True)
input()
end, rounds = time.monotonic() + 1, 0
while time.monotonic() < end:
    rounds += 1
print(rounds, flush=True)
"""
# An ordinary user who would like to be nicer to itself again.
GREEDY = """
import os, resource
from ringfence.agent.confine import shares
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
shares.take(32)
print(os.getpriority(os.PRIO_PROCESS, 0))
for attempt in (
    lambda: os.setpriority(os.PRIO_PROCESS, 0, 0),
    lambda: os.nice(-1),
    lambda: resource.setrlimit(resource.RLIMIT_NICE, (20, 20)),
):
    try:
        attempt()
        print("raised")
    except (OSError, ValueError):
        print("refused")
"""


@pytest.mark.parametrize(("units", "nice"), [(64, 0), (52, 1), (32, 3), (16, 6), (8, 9), (2, 16), (1, 19)])
def test_units_are_the_nearest_weight_of_the_scheduler(units: int, nice: int) -> None:
    assert niceness(units) == nice


@given(UNITS, UNITS)
def test_more_units_are_never_a_smaller_share(some: int, others: int) -> None:
    if some <= others:
        assert niceness(some) >= niceness(others)
        assert cpu_weight(some) <= cpu_weight(others)
    assert 0 <= niceness(some) <= 19
    assert 1 <= cpu_weight(some) <= 10_000
    assert cpu_weight(some) * others == cpu_weight(others) * some


def contend(units: Sequence[int]) -> list[int]:
    """How far each of some processes came that shared one processor, each with its units."""
    processor = str(min(os.sched_getaffinity(0)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(each), processor],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in units
    ]
    rounds = []
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            rounds.append(int(process.stdout.readline()))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return rounds


def test_twice_the_units_are_about_twice_the_time_under_contention() -> None:
    full, half = contend([64, 32])
    assert 1.6 < full / half < 2.5


def test_the_same_units_are_about_the_same_time() -> None:
    one, other = contend([32, 32])
    assert 0.75 < one / other < 1.34


def test_a_share_cannot_be_raised_again() -> None:
    said = subprocess.run([sys.executable, "-c", GREEDY], check=True, capture_output=True, text=True).stdout
    nice, *attempts = said.splitlines()
    assert int(nice) >= 3
    assert attempts == ["refused"] * 3
