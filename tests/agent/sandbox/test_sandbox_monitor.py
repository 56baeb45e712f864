"""The monitor: what it makes of samples, told once, and that no worker's words can upset it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.errors import MONITOR_KILLED
from ringfence.agent.sandbox.monitor import (
    Event,
    Observed,
    Sample,
    Thresholds,
    Watch,
    Watched,
    begin,
    observe,
    read_sample,
)
from ringfence.agent.sandbox.port import Limits

MS, S = 10**6, 10**9
MIB = 1024 * 1024
START = Sample(time_ns=0, cpu_ns=0, memory_bytes=20 * MIB, guest_bytes=0, commands=0, checkpoints=0)
LIMITS = Limits(memory_bytes=64 * MIB, gpu_memory_bytes=1, deadline_ms=1000, output_bytes=4 * MIB, qubits=0)
COUNT = st.integers(0, 2**63 - 1)
SAMPLES = st.builds(Sample, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
WATCHES = st.builds(Watch, COUNT, COUNT, COUNT, COUNT, st.frozensets(st.sampled_from(Watched)))


def later(sample: Sample = START, *, ms: int = 100, **changes: int) -> Sample:
    """The same job `ms` later, having used a whole processor unless told otherwise."""
    return replace(sample, **{"time_ns": sample.time_ns + ms * MS, "cpu_ns": sample.cpu_ns + ms * MS, **changes})


def events(watch: Watch, *samples: Sample) -> list[Event]:
    """Every event of a job that was sampled so."""
    state = begin(START)
    told: list[Event] = []
    for sample in samples:
        state, new = observe(state, sample, watch)
        told += new
    return told


def test_an_honest_job_raises_nothing() -> None:
    watch = Thresholds(commands_per_second=1000, checkpoint_gap_ms=500).watch(LIMITS, began_bytes=20 * MIB)
    samples = [later(ms=100 * n, commands=90 * n, checkpoints=n, memory_bytes=84 * MIB) for n in range(1, 20)]
    assert events(watch, *samples) == []


BEYOND = {
    "a second thread": (
        Watch(processor_percent=150),
        later(cpu_ns=200 * MS),
        Event(Watched.PROCESSOR, 180, 150, False),
    ),
    "more memory": (Watch(memory_bytes=MIB), later(memory_bytes=MIB + 1), Event(Watched.MEMORY, MIB + 1, MIB, False)),
    "a flood of commands": (
        Watch(commands_per_second=1000),
        later(commands=101),
        Event(Watched.COMMANDS, 1010, 1000, False),
    ),
    "no checkpoint": (Watch(checkpoint_gap_ms=99), later(), Event(Watched.CHECKPOINTS, 100, 99, False)),
}


@pytest.mark.parametrize("case", BEYOND)
def test_what_is_beyond_the_watch_is_an_event_once_until_it_is_over(case: str) -> None:
    watch, sample, event = BEYOND[case]
    assert events(watch, sample) == [event]
    assert events(Watch(), sample) == []
    assert events(replace(watch, kills=frozenset({event.watched})), sample) == [replace(event, kill=True)]
    assert events(replace(watch, kills=frozenset(Watched) - {event.watched}), sample) == [event]
    other = replace(sample, time_ns=sample.time_ns + 1, cpu_ns=sample.cpu_ns + 1, commands=sample.commands + 1)
    again = events(replace(watch, processor_percent=0, commands_per_second=0), sample, other)
    assert len(again) == (event.watched in (Watched.MEMORY, Watched.CHECKPOINTS))


def test_an_event_that_was_over_is_told_again() -> None:
    calm, loud = Watch(memory_bytes=MIB), MIB + 1
    samples = [later(ms=ms, memory_bytes=size) for ms, size in ((100, loud), (200, loud), (300, MIB), (400, loud))]
    assert [event.measured for event in events(calm, *samples)] == [loud, loud]


def test_a_gap_is_counted_from_the_last_checkpoint_and_not_from_the_last_look() -> None:
    watch = Watch(checkpoint_gap_ms=250)
    still = [later(ms=100 * n, checkpoints=1) for n in range(1, 6)]
    assert [event.measured for event in events(watch, *still)] == [300]
    assert events(watch, *[later(ms=100 * n, checkpoints=n) for n in range(1, 6)]) == []


def test_a_clock_tick_at_either_end_is_no_second_thread() -> None:
    assert events(Watch(processor_percent=100), later(ms=20, cpu_ns=40 * MS)) == []


@given(SAMPLES, SAMPLES, WATCHES)
def test_whatever_a_worker_says_there_is_an_answer(first: Sample, second: Sample, watch: Watch) -> None:
    state, _ = observe(begin(START), first, watch)
    after, told = observe(state, second, watch)
    assert after.sample == second
    for event in told:
        assert event.watched not in state.raised
        assert event.watched in after.raised
        assert 0 < event.allowed < event.measured <= 2**63 - 1 or event.allowed == 2**63 - 1
        assert event.kill == (event.watched in watch.kills)
        assert event.error().code is MONITOR_KILLED
    assert isinstance(after, Observed)


def test_what_is_killed_for_says_why() -> None:
    error = Event(Watched.CHECKPOINTS, 300, 250, True).error()
    assert (error.code.name, error.field) == ("sandbox.monitor_killed", "checkpoints")
    assert str(error) == (
        "sandbox.monitor_killed (checkpoints): The job was killed by its monitor: checkpoints showed 300, more than "
        "250. See [sandbox.monitor] in the agent's configuration."
    )


def test_the_memory_that_a_job_may_use_follows_from_its_limits() -> None:
    assert Thresholds().watch(LIMITS, began_bytes=20 * MIB).memory_bytes == (20 + 64 + 2 * 4 + 16) * MIB
    assert Thresholds(memory_percent=50).watch(LIMITS, began_bytes=0).memory_bytes == (36 + 16) * MIB
    assert Thresholds(memory_percent=0).watch(LIMITS, began_bytes=5).memory_bytes == 0


NO_PROGRESS = memoryview(bytes(64 * 1024))


@given(st.binary(min_size=40, max_size=64))
def test_a_page_of_garbage_is_cut_to_what_a_record_holds(page: bytes) -> None:
    sample = read_sample(os.getpid(), memoryview(page), 7)
    assert sample is not None
    words = struct.unpack_from("<5Q", page)
    assert (sample.checkpoints, sample.commands, sample.guest_bytes) == tuple(
        min(word, 2**63 - 1) for word in (words[0], words[2], words[3])
    )
    assert sample.time_ns == 7


BUSY = """
kept = bytearray(b"x") * (32 << 20)
print(flush=True)
sum(range(10**7))
print(flush=True)
input()
"""


def test_a_process_is_read_as_the_kernel_accounts_it() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = read_sample(process.pid, NO_PROGRESS, 0)
        process.stdout.readline()
        after = read_sample(process.pid, NO_PROGRESS, 1)
        assert before is not None
        assert after is not None
        assert after.cpu_ns > before.cpu_ns
        assert 32 * MIB < after.memory_bytes < 64 * MIB
        process.stdin.close()
    assert read_sample(process.pid, NO_PROGRESS, 2) is None


def test_a_process_cannot_forge_its_figures_by_its_name(tmp_path: Path) -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "stat").write_text(f"7 (x) R 0 0) S {fields}\n")
    (folder / "statm").write_text("100 30 10 1 0 50 0\n")
    sample = read_sample(7, NO_PROGRESS, 0, tmp_path)
    assert sample is not None
    assert (sample.cpu_ns, sample.memory_bytes) == ((14 + 15) * 10 * MS, 20 * os.sysconf("SC_PAGE_SIZE"))
