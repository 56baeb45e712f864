"""Takes everything from a process that its guest does not need, and says what this host offers for it.

Two steps: `before_compile` takes files, sockets, processes and signals before any byte of the untrusted module is
looked at; `before_run` also takes the making of code, which only the compiler needs. Both fail closed. Only Landlock
may be absent: the system-call filter alone already denies every file, and `probe` reports it.
"""

from __future__ import annotations

import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.agent.confine import kernel, seccomp

_MEMFD_SECRET = 447  # the same number on every architecture since Linux 5.14

_MIB = 1024 * 1024
_COMPILE_MEMORY: Final = 1024 * _MIB
_RUN_HEADROOM: Final = 128 * _MIB
# The runtime reserves 4 GiB for the guest's memory without using them, whatever its limit.
_ADDRESS_SPACE: Final = 16 * 1024 * _MIB
# Enough for the interpreter's last words on standard error.
_MAX_FILE: Final = 16 * 1024
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
    """Locks the calling process down, once. Raises `SandboxError` (`sandbox.lockdown_failed`) on any refusal."""

    def __init__(self, *, parent_pid: int) -> None:
        self._machine = kernel.architecture()
        self._parent_pid = parent_pid
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def before_compile(self, *, deadline_ms: int, memory_bytes: int, output_bytes: int) -> None:
        """Leave a process that can compute, compile, and use the descriptors it holds; nothing else.

        The processor-time limit is a backstop: the agent keeps the deadline itself.
        """
        kernel.die_with_parent(self._parent_pid)
        kernel.give_up_privileges()
        kernel.deny_files()
        for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK):
            kernel.set_limit(limit, 0)
        kernel.set_limit(resource.RLIMIT_FSIZE, _MAX_FILE)
        seconds = deadline_ms // 1000 + 2
        kernel.set_limit(resource.RLIMIT_CPU, seconds, seconds + 1)
        # RLIMIT_DATA counts what can be written (setrlimit(2)). What cannot still needs page tables, so the address
        # space has an end too, behind the runtime's own reservation.
        kernel.set_limit(resource.RLIMIT_AS, self._used(_SIZE) + _ADDRESS_SPACE)
        data = self._used(_DATA)
        run = _run_memory(memory_bytes, output_bytes)
        kernel.set_limit(resource.RLIMIT_DATA, data + _COMPILE_MEMORY, data + _COMPILE_MEMORY + run)
        kernel.filter_system_calls(self._machine, seccomp.COMPILING, may_make_code=True)

    def before_run(self, *, memory_bytes: int, output_bytes: int) -> None:
        """Also take away the making of code, and hold memory to the guest's own and a fixed headroom."""
        kernel.set_limit(resource.RLIMIT_DATA, self._used(_DATA) + _run_memory(memory_bytes, output_bytes))
        os.close(self._statm)
        kernel.filter_system_calls(self._machine, seccomp.RUNNING, may_make_code=False)

    def _used(self, column: int) -> int:
        """Bytes of this process in a column of its statm (proc(5))."""
        return int(os.pread(self._statm, 256, 0).split()[column]) * resource.getpagesize()


def _run_memory(memory_bytes: int, output_bytes: int) -> int:
    return memory_bytes + 2 * output_bytes + _RUN_HEADROOM


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
    """Whether this process may make sub-groups of its own cgroup v2."""
    for line in _read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            folder = Path("/sys/fs/cgroup") / line[3:].lstrip("/")
            return (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK)
    return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
