"""Takes from the calling process what the kernel can take: its privileges, its files, its limits, its system calls.

Nothing here can be undone by the process that did it. Every function raises `SandboxError` (`sandbox.lockdown_failed`)
when the kernel refuses; only Landlock may be absent, because the system-call filter alone already denies every file.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Set

from ringfence.agent.confine import seccomp
from ringfence.agent.errors import LOCKDOWN_FAILED, SandboxError

# include/uapi/linux/prctl.h, linux/seccomp.h and linux/capability.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
# The same numbers on every architecture since Linux 5.13.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION_FLAG = 1


def architecture() -> str:
    """This machine's architecture, for `filter_system_calls`; raises when there is no filter for it."""
    machine = os.uname().machine
    if not seccomp.supported(machine):
        raise _failed(f"there is no system-call filter for the {machine} architecture")
    return machine


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends. Raises also when that is no longer `parent_pid`."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, "die with its parent")
    if os.getppid() != parent_pid:
        raise _failed("the process that started it has gone")


def give_up_privileges() -> None:
    """Not dumpable (no core, no tracing by other processes of the user), no capability, and never a new privilege.

    Without its capabilities a process of root, too, is held by its resource limits.
    """
    _prctl(_PR_SET_DUMPABLE, 0, "become non-dumpable")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "give up new privileges")
    header, nothing = struct.pack("@Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    if _libc().capset(header, nothing) != 0:
        raise _refused("give up its capabilities")


def rename(name: str) -> None:
    """Call this process `name` (at most 15 ASCII characters) where processes are listed (ps, top, /proc/PID/comm)."""
    if _libc().prctl(_PR_SET_NAME, name.encode("ascii")) != 0:
        raise _refused("take a name")


def close_all_but(keep: Set[int]) -> None:
    """Close every descriptor of this process that is not in `keep`."""
    after = 0
    for descriptor in sorted(keep):
        if after < descriptor:  # os.closerange takes an empty range that starts at 0 for all descriptors
            os.closerange(after, descriptor)
        after = descriptor + 1
    os.closerange(after, os.sysconf("SC_OPEN_MAX"))


def address_space() -> int:
    """The bytes of this process's address space (statm, proc(5))."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def deny_files() -> None:
    """Deny every file, and what else this kernel's Landlock can deny; nothing where there is no Landlock."""
    abi = landlock_abi()
    if not abi:
        return
    libc = _libc()
    # linux/landlock.h: the rights each ABI knows; a ruleset without rules denies all that it handles.
    files = (1 << 13) - 1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0) | (1 << 15 if abi >= 5 else 0)
    attributes = struct.pack("<QQQ", files, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise _refused("make a Landlock ruleset")
    if libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise _refused("restrict itself by Landlock")
    os.close(ruleset)


def landlock_abi() -> int:
    """The version of this kernel's Landlock, 0 where it is missing."""
    return max(0, int(_libc().syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)))


def set_limit(limit: int, soft: int, hard: int | None = None) -> None:
    """Set a resource limit (setrlimit(2)) to `soft` and its ceiling to `hard`, or to `soft` too; neither is raised."""
    try:
        ceiling = resource.getrlimit(limit)[1]
        wanted = (soft, soft if hard is None else hard)
        if ceiling != resource.RLIM_INFINITY:
            wanted = (min(wanted[0], ceiling), min(wanted[1], ceiling))
        resource.setrlimit(limit, wanted)
    except (OSError, ValueError) as error:
        raise _failed(f"the process could not lower resource limit {limit} ({error})") from error


def filter_system_calls(program: bytes) -> None:
    """From now on, a system call that `program` (see `seccomp.program`) does not allow kills this process.

    Filters add up, and the strictest verdict counts.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _prctl(seccomp.PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, "install its system-call filter", filter_)


def _failed(what: str) -> SandboxError:
    return SandboxError(
        LOCKDOWN_FAILED,
        f"The sandbox cannot be locked down: {what}.",
        hint="Run `ringfence doctor` to see what this host lacks.",
    )


def _prctl(option: int, value: int, what: str, pointer: bytes | None = None) -> None:
    if _libc().prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise _refused(what)


def _refused(what: str) -> SandboxError:
    return _failed(f"the process could not {what} ({os.strerror(ctypes.get_errno())})")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
