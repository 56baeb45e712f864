"""A worker whose runtime is broken: it locks itself down as the real one does, and then does what its guest wants.

    python -I hostile_worker.py STAGE ACTION JOB RESULT RING PARENT

STAGE is compile or run: how far the lock-down has come. It answers "survived" when nothing stopped ACTION.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import socket
import sys
from collections.abc import Callable

from ringfence.agent.sandbox import exchange
from ringfence.agent.sandbox.lockdown import Lockdown

PROT_READ, PROT_READ_WRITE, PROT_ALL = 1, 3, 7
SHARED_ANONYMOUS, PRIVATE_ANONYMOUS, GROWS_DOWN, NO_RESERVE = 0x21, 0x22, 0x100, 0x4000
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS = {
    "x86_64": {"mmap": 9, "ptrace": 101, "memfd_create": 319, "process_vm_readv": 310},
    "aarch64": {"mmap": 222, "ptrace": 117, "memfd_create": 279, "process_vm_readv": 270},
}[os.uname().machine] | {"clone3": 435, "io_uring_setup": 425}
parent = int(sys.argv[6])


def syscall(name: str, *arguments: int) -> int:
    words = [*arguments, *[0] * (6 - len(arguments))]
    return int(libc.syscall(*map(ctypes.c_long, (NUMBERS[name], *words))))


def take(size: int, protection: int, flags: int) -> int:
    address = syscall("mmap", 0, size, protection, flags, -1)
    if address == -1:
        raise OSError(ctypes.get_errno(), "no such memory")
    return address


page = take(4096, PROT_READ_WRITE, PRIVATE_ANONYMOUS)


def take_all() -> object:
    ceiling = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    return take(2 << 30, PROT_READ_WRITE, PRIVATE_ANONYMOUS)


ACTIONS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "create": lambda: os.open("/tmp/escaped", os.O_RDWR | os.O_CREAT),
    "unlink": lambda: os.unlink("/tmp/escaped"),
    "socket": lambda: socket.socket(),
    "fork": os.fork,
    "clone3": lambda: syscall("clone3"),
    "execve": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - what the sandbox must stop
    "executable mmap": lambda: take(4096, PROT_ALL, PRIVATE_ANONYMOUS),
    "executable mprotect": lambda: libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(4096), PROT_ALL),
    "kill the agent": lambda: os.kill(parent, 0),
    "tgkill the agent": lambda: libc.tgkill(parent, parent, 0),
    "ptrace": lambda: syscall("ptrace"),
    "read the agent's memory": lambda: syscall("process_vm_readv"),
    "io_uring": lambda: syscall("io_uring_setup"),
    "memfd": lambda: syscall("memfd_create"),
    "prctl": lambda: libc.prctl(4, 1, 0, 0, 0),
    "raise a limit": lambda: resource.setrlimit(7, (64, 64)),
    "shared memory": lambda: take(1 << 32, PROT_READ_WRITE, SHARED_ANONYMOUS),
    "a stack of its own": lambda: take(1 << 32, PROT_READ_WRITE, PRIVATE_ANONYMOUS | GROWS_DOWN),
    "a flag in the upper half": lambda: take(4096, PROT_READ_WRITE, PRIVATE_ANONYMOUS | 1 << 32),
    "page tables": lambda: take(1 << 40, PROT_READ, PRIVATE_ANONYMOUS | NO_RESERVE),
    "outlive the agent": lambda: libc.prctl(1, 0, 0, 0, 0),
    "the agent's limits": lambda: resource.prlimit(parent, resource.RLIMIT_DATA),
    "no limit of memory": lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)),
    "all that its ceiling allows": take_all,
    "a gibibyte": lambda: bytearray(1 << 30),
    "abort": lambda: libc.abort(),
}

job_file, result_file = int(sys.argv[3]), int(sys.argv[4])
# Before the two are mapped: Python's mmap keeps a second descriptor of each.
inherited = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]
job = exchange.decode_job(memoryview(mmap.mmap(job_file, 0, access=mmap.ACCESS_READ)))
result = mmap.mmap(result_file, 0)
if sys.argv[2] == "look around":
    seen = f"{inherited} {dict(os.environ)} {os.getcwd()}".encode()
else:
    seen = b"survived"
    lockdown = Lockdown(parent_pid=parent)
    lockdown.before_compile(deadline_ms=job.deadline_ms, memory_bytes=job.memory_bytes, output_bytes=job.output_bytes)
    if sys.argv[1] == "run":
        lockdown.before_run(memory_bytes=job.memory_bytes, output_bytes=job.output_bytes)
    try:
        ACTIONS[sys.argv[2]]()
    except (OSError, MemoryError, ValueError) as error:
        seen = type(error).__name__.encode()
result[exchange.OUTPUT_OFFSET : exchange.OUTPUT_OFFSET + len(seen)] = seen
report = exchange.encode_report(exchange.Report(output_bytes=len(seen)))
head = exchange.encode_head(0, exchange.PHASE_RUNNING, report)
result[: len(head)] = head
os._exit(0)
