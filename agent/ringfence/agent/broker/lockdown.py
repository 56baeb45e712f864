"""Takes from the broker's process what it does not need, before it reads the first byte of a job."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from ringfence.agent.errors import LOCKDOWN_FAILED, SandboxError

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

_MAX_FILES = 16
_BASE_DATA = 512 * 1024 * 1024  # the interpreter, one batch and its decoded commands


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends.

    Raises `sandbox.lockdown_failed`, also when the parent ended meanwhile.
    """
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SandboxError(LOCKDOWN_FAILED, "The process that started this broker ended before the broker was ready.")


def lock_down(keep: set[int], device_bytes: int) -> None:
    """Close every descriptor but the standard three and `keep`, and set the limits that hold until the process ends.

    `device_bytes` is what the job's devices may hold. No new privileges, not dumpable (no core, no ptrace by other
    processes of the user), no files, threads or processes. Raises `sandbox.lockdown_failed`.
    """
    _close_all_but({0, 1, 2, *keep})
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: _MAX_FILES,
        resource.RLIMIT_DATA: _BASE_DATA + device_bytes,
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))


def _close_all_but(keep: set[int]) -> None:
    after = 0
    for descriptor in sorted(keep):
        if after < descriptor:  # os.closerange takes an empty range that starts at 0 for all descriptors
            os.closerange(after, descriptor)
        after = descriptor + 1
    os.closerange(after, os.sysconf("SC_OPEN_MAX"))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise SandboxError(LOCKDOWN_FAILED, f"prctl option {option} failed: {reason}.")
