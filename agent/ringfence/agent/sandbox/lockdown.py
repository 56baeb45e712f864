"""Takes everything from a process that its guest does not need, and says what this host offers for it.

Two steps: `before_compile` takes files, sockets, processes and signals before any byte of the untrusted module is
looked at; `before_run` also takes the making of code, which only the compiler needs. Both fail closed. Only Landlock
may be absent: the system-call filter alone already denies every file, and `probe` reports it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.agent.errors import LOCKDOWN_FAILED, SandboxError
from ringfence.agent.sandbox import seccomp

# include/uapi/linux/prctl.h and linux/seccomp.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
# The same numbers on every architecture since Linux 5.13 and 5.14.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF, _MEMFD_SECRET = 444, 446, 447
_LANDLOCK_VERSION_FLAG = 1

_MIB = 1024 * 1024
_COMPILE_MEMORY: Final = 1024 * _MIB
_RUN_HEADROOM: Final = 128 * _MIB
# Enough for the interpreter's last words on standard error.
_MAX_FILE: Final = 16 * 1024


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
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._machine = os.uname().machine
        self._parent_pid = parent_pid
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        if not seccomp.supported(self._machine):
            raise _failed(f"there is no system-call filter for the {self._machine} architecture")

    def before_compile(self, *, deadline_ms: int) -> None:
        """Leave a process that can compute, compile, and use the descriptors it holds; nothing else.

        The processor-time limit is a backstop: the agent keeps the deadline itself.
        """
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, "die with the agent")
        if os.getppid() != self._parent_pid:
            raise _failed("the agent has gone")
        self._prctl(_PR_SET_DUMPABLE, 0, "become non-dumpable")
        self._prctl(_PR_SET_NO_NEW_PRIVS, 1, "give up new privileges")
        self._landlock()
        seconds = deadline_ms // 1000 + 2
        for limit, soft, hard in (
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_NPROC, 0, 0),
            (resource.RLIMIT_NOFILE, 0, 0),
            (resource.RLIMIT_MEMLOCK, 0, 0),
            (resource.RLIMIT_FSIZE, _MAX_FILE, _MAX_FILE),
            (resource.RLIMIT_CPU, seconds, seconds + 1),
        ):
            _set_limit(limit, soft, hard)
        self._limit_data(_COMPILE_MEMORY)
        self._filter(seccomp.COMPILING, may_make_code=True)

    def before_run(self, *, memory_bytes: int, output_bytes: int) -> None:
        """Also take away the making of code, and hold memory to the guest's own and a fixed headroom."""
        self._limit_data(memory_bytes + 2 * output_bytes + _RUN_HEADROOM)
        os.close(self._statm)
        self._filter(seccomp.RUNNING, may_make_code=False)

    def _limit_data(self, more: int) -> None:
        # RLIMIT_AS would break the runtime's 4 GiB reservation; RLIMIT_DATA counts what can be written (setrlimit(2)).
        pages = int(os.pread(self._statm, 256, 0).split()[5])
        ceiling = pages * resource.getpagesize() + more
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            ceiling = min(ceiling, hard)
        _set_limit(resource.RLIMIT_DATA, ceiling, hard)

    def _landlock(self) -> None:
        abi = _landlock_abi(self._libc)
        if not abi:
            return
        # linux/landlock.h: the rights each ABI knows; a ruleset without rules denies all that it handles.
        files = (
            (1 << 13) - 1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0) | (1 << 15 if abi >= 5 else 0)
        )
        attributes = struct.pack("<QQQ", files, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
        size = 8 if abi < 4 else 16 if abi < 6 else 24
        ruleset = self._libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
        if ruleset < 0:
            raise _failed(f"Landlock refused a ruleset ({os.strerror(ctypes.get_errno())})")
        if self._libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
            raise _failed(f"Landlock refused to restrict the worker ({os.strerror(ctypes.get_errno())})")
        os.close(ruleset)

    def _filter(self, allowed: tuple[str, ...], *, may_make_code: bool) -> None:
        code = seccomp.program(self._machine, allowed, own_pid=os.getpid(), may_make_code=may_make_code)
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
        self._prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, "install its system-call filter", program)

    def _prctl(self, option: int, value: int, what: str, pointer: bytes | None = None) -> None:
        if self._libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            raise _failed(f"the worker could not {what} ({os.strerror(ctypes.get_errno())})")


def probe() -> HostFeatures:
    """What this host offers, found without changing anything."""
    libc = ctypes.CDLL(None, use_errno=True)
    secret = libc.syscall(_MEMFD_SECRET, 0)
    if secret >= 0:
        os.close(secret)
    return HostFeatures(
        landlock_abi=_landlock_abi(libc),
        seccomp=seccomp.supported(os.uname().machine)
        and "kill_process" in _read("/proc/sys/kernel/seccomp/actions_avail"),
        userns=_user_namespaces(),
        memfd_secret=secret >= 0,
        pidfd=_pidfd(),
        cgroup2_delegated=_cgroup2_delegated(),
    )


def _landlock_abi(libc: ctypes.CDLL) -> int:
    return max(0, int(libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)))


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


def _set_limit(limit: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(limit, (soft, hard))
    except (OSError, ValueError) as error:
        raise _failed(f"the worker could not lower resource limit {limit} ({error})") from error


def _failed(what: str) -> SandboxError:
    return SandboxError(
        LOCKDOWN_FAILED,
        f"The sandbox cannot be locked down: {what}.",
        hint="Run `ringfence doctor` to see what this host lacks.",
    )
