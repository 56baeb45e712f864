"""Takes from the broker's process what it does not need, before it reads the first byte of a job.

Its devices are open and their code is made by then, so it gets by with what a running guest's worker may do: memory,
its ring, random, clock, and the end.
"""

from __future__ import annotations

import os
import resource

from ringfence.agent.confine import kernel, seccomp

# What devices reserve without using it: the runtime 4 GiB and its guards for the CPU device's memory.
_RESERVATIONS = 16 * 1024**3
_AMPLITUDE_BYTES = 16
_BASE_DATA = 512 * 1024 * 1024  # the interpreter, one batch and its decoded commands


def device_bytes(gpu_memory_bytes: int, qubits: int) -> int:
    """What a job's devices may hold: while numpy applies a gate, up to three halves of the state live beside it."""
    return gpu_memory_bytes + 3 * (_AMPLITUDE_BYTES << qubits)


def lock_down(keep: set[int], device_bytes: int, *, began_bytes: int) -> None:
    """Close every descriptor but the standard three and `keep`; then take files, processes, signals and system calls.

    `device_bytes` is what the job's devices may hold from now on, and `began_bytes` the address space that the process
    had before it opened them. After it the process reads, writes, computes and
    ends (`os._exit`); anything else kills it. Raises `sandbox.lockdown_failed`.
    """
    machine = kernel.architecture()
    kernel.close_all_but({0, 1, 2, *keep})
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
    kernel.set_limit(resource.RLIMIT_AS, began_bytes + _RESERVATIONS + data)
    kernel.filter_system_calls(seccomp.program(machine, seccomp.RUNNING, own_pid=os.getpid(), may_make_code=False))
