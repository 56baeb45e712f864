"""Takes everything from a zygote's child that its work does not need, and says what this host offers for it.

The zygote has given up privileges and files already, and its children inherit that. What is left is each role's own:
its limits, and the system calls that it may make. It fails closed. Only Landlock and namespaces may be absent, because
the system-call filter alone already denies every file and socket; `probe` reports it.
"""

from __future__ import annotations

import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.agent.confine import groups, kernel, seccomp

_MEMFD_SECRET = 447  # the same number on every architecture since Linux 5.14

_MIB = 1024 * 1024
_COMPILE_MEMORY: Final = 1024 * _MIB
COMPILE_CPU_S: Final = 20
MAX_COMPILED: Final = 256 * _MIB
_RUN_HEADROOM: Final = 128 * _MIB
# The runtime reserves 4 GiB for a memory without using them, whatever its limit: here the guest's, its rehearsal's
# and the guards behind them.
_ADDRESS_SPACE: Final = 24 * 1024 * _MIB
# Enough for the interpreter's last words on standard error.
_MAX_DIAGNOSTICS: Final = 16 * 1024
# Columns of /proc/self/statm: the whole address space, and what of it can be written.
_SIZE, _DATA = 0, 5


@dataclass(frozen=True, slots=True)
class HostFeatures:
    """What this kernel and this account offer a sandbox. `landlock_abi` is 0 where Landlock is missing."""

    landlock_abi: int
    seccomp: bool
    userns: bool
    memfd_secret: bool
    pidfd: bool
    cgroup2_delegated: bool


class Lockdown:
    """Locks children of the calling process down, each once. Made by the zygote, whose size is every child's start.

    All methods raise `SandboxError` (`sandbox.lockdown_failed`) on any refusal of the kernel.
    """

    def __init__(self) -> None:
        machine = kernel.architecture()
        self._parent = os.getpid()
        self._filters = {
            may: seccomp.program(machine, allowed, own_pid=seccomp.ANY_PID, may_make_code=may)
            for may, allowed in ((True, seccomp.COMPILING), (False, seccomp.RUNNING))
        }
        sizes = Path("/proc/self/statm").read_text(encoding="ascii").split()
        self._size, self._data = (int(sizes[column]) * resource.getpagesize() for column in (_SIZE, _DATA))

    def begin(self, *, may_make_code: bool) -> bytes:
        """Have the kernel kill this process when the zygote ends; gives the filter that it will take.

        With `may_make_code` it is a compiler's or a loader's, without it a guest's.
        """
        kernel.die_with_parent(self._parent)
        return seccomp.of_process(self._filters[may_make_code], os.getpid())

    def compiler(self, program: bytes) -> None:
        """Leave a process that can compute, compile, and use the descriptors it holds; nothing else."""
        self._limit(cpu_s=COMPILE_CPU_S, data=_COMPILE_MEMORY, file=MAX_COMPILED)
        kernel.filter_system_calls(program)

    def loader(
        self, program: bytes, *, deadline_ms: int, memory_bytes: int, output_bytes: int, compiled_bytes: int
    ) -> None:
        """Leave a process that can take over compiled code of so many bytes, as a compiler's filter allows.

        Whoever took a compile child over wrote that code, and reading it is not safe: this comes before it. The
        processor-time limit is a backstop: the agent keeps the deadline itself.
        """
        run = memory_bytes + 2 * output_bytes + _RUN_HEADROOM
        self._limit(cpu_s=deadline_ms // 1000 + 2, data=run + 2 * compiled_bytes, file=_MAX_DIAGNOSTICS)
        kernel.filter_system_calls(program)

    def guest(self, program: bytes, *, memory_bytes: int, output_bytes: int) -> None:
        """Leave a loader that can compute in its own memory, and use the descriptors it holds; nothing else."""
        run = memory_bytes + 2 * output_bytes + _RUN_HEADROOM
        kernel.set_limit(resource.RLIMIT_DATA, self._data + run)
        kernel.filter_system_calls(program)

    def _limit(self, *, cpu_s: int, data: int, file: int) -> None:
        for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK):
            kernel.set_limit(limit, 0)
        kernel.set_limit(resource.RLIMIT_FSIZE, file)
        kernel.set_limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
        # RLIMIT_DATA counts what can be written (setrlimit(2)). What cannot still needs page tables, so the address
        # space has an end too, behind the runtime's own reservation.
        kernel.set_limit(resource.RLIMIT_AS, self._size + _ADDRESS_SPACE)
        kernel.set_limit(resource.RLIMIT_DATA, self._data + data)


def probe() -> HostFeatures:
    """What this host offers, found without changing anything."""
    libc = ctypes.CDLL(None, use_errno=True)
    secret = libc.syscall(_MEMFD_SECRET, 0)
    if secret >= 0:
        os.close(secret)
    return HostFeatures(
        landlock_abi=kernel.landlock_abi(),
        seccomp=seccomp.supported(os.uname().machine)
        and "kill_process" in _read("/proc/sys/kernel/seccomp/actions_avail"),
        userns=_user_namespaces(),
        memfd_secret=secret >= 0,
        pidfd=_pidfd(),
        cgroup2_delegated=_cgroup2_delegated(),
    )


def _pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _user_namespaces() -> bool:
    """Whether an ordinary user may create a user namespace, by the switches of the kernel, Debian and AppArmor."""
    allowed = _read("/proc/sys/user/max_user_namespaces") not in ("", "0")
    debian = _read("/proc/sys/kernel/unprivileged_userns_clone") != "0"
    apparmor = _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") != "1"
    return allowed and (os.geteuid() == 0 or (debian and apparmor))


def _cgroup2_delegated() -> bool:
    """Whether this process may make groups for its jobs."""
    return groups.delegated(_read("/proc/self/cgroup")) is not None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
