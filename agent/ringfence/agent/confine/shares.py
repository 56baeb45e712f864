"""A job's compute units as a share of thread time: the weight that the scheduler gives its processes under contention.

Where the host delegates a cgroup to the agent, a job's group has `cpu_weight` (`ringfence.agent.confine.groups`).
Elsewhere its processes take a niceness, which is a weight as well (sched(7)). Either way a job with twice the units
gets about twice the time of another one while both want the same processor, and a job alone gets all of it.
"""

from __future__ import annotations

import os
import resource
from typing import Final

from ringfence.agent.confine import kernel

ALL: Final = 64
"""The compute units of a job that shares with nobody's favour."""

# Linux, kernel/sched/core.c, sched_prio_to_weight: the weights of niceness 0 to 19.
_WEIGHTS: Final = (1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15)


def niceness(units: int) -> int:
    """How much nicer a job with `units` (1 to 64) is than one with all: 0 to 19, by the nearest ratio of weights."""
    wanted = _WEIGHTS[0] * units / ALL

    def distance(nice: int) -> float:
        return max(_WEIGHTS[nice] / wanted, wanted / _WEIGHTS[nice])

    return min(range(len(_WEIGHTS)), key=distance)


def cpu_weight(units: int) -> int:
    """The `cpu.weight` (1 to 10000) of a job's group among its siblings, in proportion to `units` (1 to 64)."""
    return units * 100


def take(units: int) -> None:
    """Give the calling process, one of a job's, the share of `units` for good, before it is locked down.

    The process does it itself: its number may belong to another one by the time that somebody else names it. It cannot
    raise its share again, because it loses the right to a better niceness (RLIMIT_NICE, capabilities(7) CAP_SYS_NICE)
    and, locked down, the system call. A process that was started nicer gives all of its jobs less than others, and
    their shares among each other hold. Jobs must stay in one session: with autogroups (sched(7)) the kernel shares out
    time between sessions first, and niceness counts inside one only.

    Raises `SandboxError` (`sandbox.lockdown_failed`).
    """
    os.nice(niceness(units))
    kernel.set_limit(resource.RLIMIT_NICE, 0)
