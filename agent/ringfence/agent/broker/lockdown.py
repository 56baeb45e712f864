"""Takes from the broker's process what it does not need, before it reads the first byte of a job.

Its devices are open and their code is made by then, so it gets by with what a running guest's worker may do: memory,
its ring, random, clock, and the end.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from ringfence.agent.confine import kernel, seccomp

_BASE_DATA = 512 * 1024 * 1024  # the interpreter, one batch and its decoded commands


def lock_down(keep: set[int], device_bytes: int) -> None:
    """Close every descriptor but the standard three and `keep`; then take files, processes, signals and system calls.

    `device_bytes` is what the job's devices may hold from now on. After it the process reads, writes, computes and
    ends (`os._exit`); anything else kills it. Raises `sandbox.lockdown_failed`.
    """
    machine = kernel.architecture()
    _close_all_but({0, 1, 2, *keep})
    address_space = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    kernel.give_up_privileges()
    kernel.deny_files()
    for limit in (
        resource.RLIMIT_CORE,
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_NPROC,
        resource.RLIMIT_NOFILE,
        resource.RLIMIT_MEMLOCK,
    ):
        kernel.set_limit(limit, 0)
    data = _BASE_DATA + device_bytes
    kernel.set_limit(resource.RLIMIT_DATA, data)
    kernel.set_limit(resource.RLIMIT_AS, address_space + data)
    kernel.filter_system_calls(machine, seccomp.RUNNING, may_make_code=False)


def _close_all_but(keep: set[int]) -> None:
    after = 0
    for descriptor in sorted(keep):
        if after < descriptor:  # os.closerange takes an empty range that starts at 0 for all descriptors
            os.closerange(after, descriptor)
        after = descriptor + 1
    os.closerange(after, os.sysconf("SC_OPEN_MAX"))
