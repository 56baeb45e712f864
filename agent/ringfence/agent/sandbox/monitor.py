"""Watches running jobs: what the kernel and a job's own progress page say, and what to make of it.

`observe` is pure and decides; `read_sample` is the thin shell that reads. The kernel's figures hold whatever a worker
does. The progress page is written by the worker, so its figures are hints: a worker that was taken over may write
anything there. They are cut to what a record holds, and they can only end the worker's own job.
"""

from __future__ import annotations

import enum
import resource
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from ringfence.agent.errors import MONITOR_KILLED, SandboxError

if TYPE_CHECKING:
    from ringfence.agent.sandbox.levels import Level
    from ringfence.agent.sandbox.port import Limits, Usage

# Little-endian: checkpoints passed, the last one's number, commands appended, guest memory in bytes, phase.
_PROGRESS: Final = struct.Struct("<5Q")
_COUNT_MAX: Final = 2**63 - 1
_SECOND_NS: Final = 1_000_000_000
_MS_NS: Final = 1_000_000
# What /proc counts processor time in: USER_HZ is 100 on x86_64 and aarch64 (time(7)).
_TICK_NS: Final = 10_000_000
_PROC: Final = Path("/proc")
# What the runtime around a guest may come to need beside the guest's memory and its output.
_OWN_BYTES: Final = 16 * 1024 * 1024
MOST_TOLD: Final = 8
"""How many events a job has of each kind, however often it comes and goes: each is a record in the audit log."""


class Watched(enum.StrEnum):
    """What is watched, with the unit of an event's figures.

    PROCESSOR    percent of one processor, by the kernel; a guest has one thread, so more than 100 is no guest's work
    MEMORY       bytes of the worker's own memory, by the kernel
    COMMANDS     device commands a second, by the progress page
    CHECKPOINTS  milliseconds without a `security_checkpoint`, by the progress page
    """

    PROCESSOR = "processor"
    MEMORY = "memory"
    COMMANDS = "commands"
    CHECKPOINTS = "checkpoints"


_THRESHOLDS: Final = {
    Watched.PROCESSOR: "processor_percent",
    Watched.MEMORY: "memory_percent",
    Watched.COMMANDS: "commands_per_second",
    Watched.CHECKPOINTS: "checkpoint_gap_ms",
}


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator allows every job before its monitor raises an event; 0: not watched.

    `memory_percent` is of the job's own limits: its memory, and its output twice. `kill` says what a job is killed for.
    Raises `ValueError` where that is not watched: whoever wrote it believes that such jobs are killed.
    """

    processor_percent: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 150
    memory_percent: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100
    commands_per_second: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    checkpoint_gap_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 0
    kill: tuple[Watched, ...] = ()

    def __post_init__(self) -> None:
        for watched in self.kill:
            threshold = _THRESHOLDS[watched]
            if not getattr(self, threshold):
                raise ValueError(f"kill names {watched.value!r}, which {threshold} = 0 leaves unwatched")

    def watch(self, limits: Limits, *, began_bytes: int) -> Watch:
        """The watch of one job, whose worker had `began_bytes` of its own memory before the guest ran."""
        limit = limits.memory_bytes + 2 * limits.output_bytes
        return Watch(
            processor_percent=self.processor_percent,
            memory_bytes=self.memory_percent and began_bytes + limit * self.memory_percent // 100 + _OWN_BYTES,
            commands_per_second=self.commands_per_second,
            checkpoint_gap_ms=self.checkpoint_gap_ms,
            kills=frozenset(self.kill),
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """The most that each of `Watched` may show without an event, in its unit; 0: not watched."""

    processor_percent: int = 0
    memory_bytes: int = 0
    commands_per_second: int = 0
    checkpoint_gap_ms: int = 0
    kills: frozenset[Watched] = frozenset()


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a worker: when (monotonic), what it has used since its start, and how far it says it is.

    `memory_bytes` is resident memory of its own, and `cpu_ns` processor time, of all its threads; `guest_bytes`,
    `commands` and `checkpoints` are the worker's own words.
    """

    time_ns: int
    cpu_ns: int
    memory_bytes: int
    guest_bytes: int
    commands: int
    checkpoints: int


@dataclass(frozen=True, slots=True)
class Event:
    """A job went beyond its watch: what was `measured`, what is `allowed`, and whether the job is to be killed."""

    watched: Watched
    measured: int
    allowed: int
    kill: bool

    def error(self) -> SandboxError:
        """What a job that is killed for this event ends with."""
        return SandboxError(
            MONITOR_KILLED,
            f"The job was killed by its monitor: {self.watched} showed {self.measured}, more than {self.allowed}.",
            field=self.watched.value,
            hint="See [sandbox.monitor] in the agent's configuration.",
        )


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of a job after a sample: since when its checkpoints stand still, what is beyond the watch now, and
    how many events there were of each kind."""

    sample: Sample
    checkpoint_ns: int
    raised: frozenset[Watched] = frozenset()
    told: Mapping[Watched, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActiveKernel:
    """A job that runs now: since when (seconds since the epoch), with which limits and level, and its use so far."""

    job_id: str
    since: int
    limits: Limits
    level: Level
    usage: Usage


def begin(sample: Sample) -> Observed:
    """The state before the first `observe`; the time without a checkpoint starts at `sample`."""
    return Observed(sample, sample.time_ns)


def observe(before: Observed, sample: Sample, watch: Watch) -> tuple[Observed, tuple[Event, ...]]:
    """The state after `sample`, and an event for everything that is beyond `watch` and was not the last time.

    After `MOST_TOLD` of a kind there are no more, but of those that a job is killed for.
    """
    moved = sample.checkpoints != before.sample.checkpoints
    after = Observed(sample, sample.time_ns if moved else before.checkpoint_ns)
    beyond = [
        Event(watched, min(measured, _COUNT_MAX), allowed, watched in watch.kills)
        for watched, measured, allowed in (
            (Watched.PROCESSOR, _processor_percent(before.sample, sample), watch.processor_percent),
            (Watched.MEMORY, sample.memory_bytes, watch.memory_bytes),
            (Watched.COMMANDS, _commands_per_second(before.sample, sample), watch.commands_per_second),
            (Watched.CHECKPOINTS, (sample.time_ns - after.checkpoint_ns) // _MS_NS, watch.checkpoint_gap_ms),
        )
        if 0 < allowed < measured
    ]
    new = tuple(
        event
        for event in beyond
        if event.watched not in before.raised and (event.kill or before.told.get(event.watched, 0) < MOST_TOLD)
    )
    told = Counter(before.told) + Counter(event.watched for event in new)
    return replace(after, raised=frozenset(event.watched for event in beyond), told=told), new


def read_sample(pid: int, progress: memoryview, now_ns: int, proc: Path = _PROC) -> Sample | None:
    """A look at process `pid` and its progress page (at least 40 bytes); None when the process has gone, or where the
    host hides others' processes from the agent (proc(5), hidepid).

    `now_ns` is the monotonic clock. Whatever the page holds, there is a sample.
    """
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
        statm = (proc / str(pid) / "statm").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # proc(5). The second field of stat is the process's own name, in parentheses, and may hold anything.
    ticks = sum(map(int, stat[stat.rindex(b")") + 2 :].split()[11:13]))
    _, resident, shared = map(int, statm.split()[:3])
    checkpoints, _, commands, guest_bytes, _ = (min(word, _COUNT_MAX) for word in _PROGRESS.unpack_from(progress))
    return Sample(
        time_ns=now_ns,
        cpu_ns=ticks * _TICK_NS,
        memory_bytes=max(0, resident - shared) * resource.getpagesize(),
        guest_bytes=guest_bytes,
        commands=commands,
        checkpoints=checkpoints,
    )


def _processor_percent(before: Sample, after: Sample) -> int:
    # The kernel counts in ticks and each end of the interval may be one off: no more is claimed than is certain.
    used = after.cpu_ns - before.cpu_ns - 2 * _TICK_NS
    return max(0, used) * 100 // max(1, after.time_ns - before.time_ns)


def _commands_per_second(before: Sample, after: Sample) -> int:
    appended = max(0, after.commands - before.commands)
    return appended * _SECOND_NS // max(1, after.time_ns - before.time_ns)
