"""A cgroup for each job, where the host delegates its cgroup v2 to the agent (systemd: `Delegate=yes`).

    ROOT/          what was delegated; no process stays in it, because only then may it hand controllers on
    ROOT/agent/    the agent and its zygote
    ROOT/jobs/ID/  one job: its share of thread time, its memory, its processes; gone with it

Source: Linux, Documentation/admin-guide/cgroup-v2.rst. Everything is below a folder that is given, and nothing else of
the host is touched.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from ringfence.agent.confine.shares import cpu_weight
from ringfence.agent.errors import LOCKDOWN_FAILED, SandboxError

CONTROLLERS: Final = ("cpu", "memory", "pids")
_MOUNT: Final = Path("/sys/fs/cgroup")
_HAND_ON: Final = " ".join(f"+{controller}" for controller in CONTROLLERS)


def delegated(membership: str, mount: Path = _MOUNT) -> Path | None:
    """The group of a process, by its `/proc/PID/cgroup`, if this account may divide it; None where it may not."""
    for line in membership.splitlines():
        if line.startswith("0::"):
            folder = mount / line[3:].lstrip("/")
            return folder if _may_divide(folder) else None
    return None


def _may_divide(folder: Path) -> bool:
    try:
        offered = (folder / "cgroup.controllers").read_text("utf-8").split()
    except OSError:
        return False
    writable = (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control")
    return set(CONTROLLERS) <= set(offered) and all(os.access(path, os.W_OK) for path in writable)


def own_groups() -> Groups | None:
    """The groups of this process's jobs where its own group is delegated to it, which it then divides; else None."""
    try:
        root = delegated(Path("/proc/self/cgroup").read_text("utf-8"))
    except OSError:
        return None
    return None if root is None else Groups.divide(root)


class Group:
    """One job's group, made with its limits already in force."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def door(self) -> int:
        """A descriptor through which a process that holds it can `enter`; the caller closes it."""
        return os.open(self._folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def kill(self) -> None:
        """SIGKILL for every process in it, also one that is being made just now (Linux 5.14 or later)."""
        with suppress(OSError):
            (self._folder / "cgroup.kill").write_text("1", "utf-8")

    def remove(self) -> bool:
        """Remove it, once its processes have ended; False while one has not."""
        try:
            self._folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def enter(door: int) -> None:
    """Move the calling process into the group whose `door` it holds; no number is named that could be another's."""
    os.write(door, b"0")


class Groups:
    """The groups of all jobs of one agent."""

    def __init__(self, jobs: Path) -> None:
        self._jobs = jobs

    @classmethod
    def divide(cls, root: Path) -> Self | None:
        """Divide the group at `root`, which this process is in; None where the kernel refuses.

        It refuses while any other process is in that group. What jobs of an agent that was killed left is killed and
        removed.
        """
        jobs = root / "jobs"
        try:
            for folder in (root / "agent", jobs):
                folder.mkdir(exist_ok=True)
            (root / "agent" / "cgroup.procs").write_text("0", "utf-8")
            for folder in (root, jobs):
                (folder / "cgroup.subtree_control").write_text(_HAND_ON, "utf-8")
            for left in [Group(folder) for folder in jobs.iterdir() if folder.is_dir()]:
                left.kill()
                left.remove()
        except OSError:
            return None
        return cls(jobs)

    def make(self, job_id: str, *, memory_bytes: int, processes: int, units: int) -> Group:
        """A group for one job: at most `memory_bytes` of memory without swap, so many `processes`, a share of `units`.

        `memory_bytes` counts everything that its processes touch first, the runtime's own memory among it. Raises
        `SandboxError` (`sandbox.lockdown_failed`).
        """
        folder = self._jobs / job_id
        settings = {
            "cpu.weight": cpu_weight(units),
            "memory.max": memory_bytes,
            "memory.swap.max": 0,
            "memory.oom.group": 1,
            "pids.max": processes,
        }
        try:
            folder.mkdir()
            for name, value in settings.items():
                # A kernel without swap accounting has no such file.
                if name != "memory.swap.max" or (folder / name).exists():
                    (folder / name).write_text(str(value), "utf-8")
        except OSError as error:
            with suppress(OSError):
                folder.rmdir()
            raise SandboxError(
                LOCKDOWN_FAILED,
                f"The sandbox cannot be locked down: its cgroup could not be made ({error.strerror}).",
                hint="Run `ringfence doctor` to see what this host lacks.",
            ) from error
        return Group(folder)
