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

PROT_ALL, PRIVATE_ANONYMOUS = 7, 0x22
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
NUMBERS = {
    "x86_64": {"ptrace": 101, "clone3": 435, "io_uring_setup": 425, "memfd_create": 319, "process_vm_readv": 310},
    "aarch64": {"ptrace": 117, "clone3": 435, "io_uring_setup": 425, "memfd_create": 279, "process_vm_readv": 270},
}[os.uname().machine]
page = libc.mmap(None, ctypes.c_size_t(4096), 3, PRIVATE_ANONYMOUS, -1, ctypes.c_long(0))
parent = int(sys.argv[6])


def syscall(name: str) -> object:
    return libc.syscall(ctypes.c_long(NUMBERS[name]), 0, 0, 0, 0, 0, 0)


def make_code() -> object:
    return libc.mmap(None, ctypes.c_size_t(4096), PROT_ALL, PRIVATE_ANONYMOUS, -1, ctypes.c_long(0))


ACTIONS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "create": lambda: os.open("/tmp/escaped", os.O_RDWR | os.O_CREAT),
    "unlink": lambda: os.unlink("/tmp/escaped"),
    "socket": lambda: socket.socket(),
    "fork": os.fork,
    "clone3": lambda: syscall("clone3"),
    "execve": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - what the sandbox must stop
    "executable mmap": make_code,
    "executable mprotect": lambda: libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(4096), PROT_ALL),
    "kill the agent": lambda: os.kill(parent, 0),
    "tgkill the agent": lambda: libc.tgkill(parent, parent, 0),
    "ptrace": lambda: syscall("ptrace"),
    "read the agent's memory": lambda: syscall("process_vm_readv"),
    "io_uring": lambda: syscall("io_uring_setup"),
    "memfd": lambda: syscall("memfd_create"),
    "prctl": lambda: libc.prctl(4, 1, 0, 0, 0),
    "raise a limit": lambda: resource.setrlimit(7, (64, 64)),
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
    lockdown.before_compile(deadline_ms=job.deadline_ms)
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
