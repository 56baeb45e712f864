"""A broker that a worker took over can still do nothing: native code stands in for it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

BEFORE = """
import ctypes, errno, mmap, os, resource, signal, socket, sys, threading
from ringfence.agent.broker.lockdown import lock_down
from ringfence.agent.confine.kernel import address_space, give_up_privileges
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_size_t
libc.mmap.argtypes = (*[ctypes.c_size_t] * 4, ctypes.c_int, ctypes.c_long)
parent, kept, stray = os.getppid(), os.dup(0), os.dup(0)
"""
LOCKED = BEFORE + "lock_down({kept}, 0, began_bytes=address_space())\n"


def status(script: str) -> int:
    process = subprocess.run([sys.executable, "-I", "-c", script], check=False, stdin=subprocess.DEVNULL, timeout=20)
    return process.returncode


def test_a_harmless_broker_survives() -> None:
    assert status(LOCKED + "os.urandom(8); bytearray(1 << 27); os._exit(17)") == 17


@pytest.mark.parametrize(
    "action",
    [
        "os.open('/etc/passwd', os.O_RDONLY)",
        "os.unlink('/tmp/escaped')",
        "socket.socket()",
        "os.fork()",
        "threading.Thread(target=print).start()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(parent, 0)",
        "libc.tgkill(parent, parent, 0)",
        "libc.ptrace(16, parent, 0, 0)",
        "resource.prlimit(parent, resource.RLIMIT_FSIZE)",
        "resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))",
        "libc.prctl(1, 0, 0, 0, 0)",
        "os.memfd_create('more')",
        "libc.mmap(0, 4096, 7, 0x22, -1, 0)",
        "libc.mmap(0, 1 << 32, 3, 0x21, -1, 0)",
        "libc.mmap(0, 1 << 32, 3, 0x122, -1, 0)",
        "os.close(kept)",
    ],
)
def test_a_broker_dies_of_it(action: str) -> None:
    assert status(LOCKED + action + "; os._exit(17)") == -signal.SIGSYS


@pytest.mark.parametrize(("size", "protection"), [(1 << 30, 3), (1 << 40, 1)])
def test_the_kernel_refuses_memory_beyond_the_limit(size: int, protection: int) -> None:
    take = f"os._exit(17 if libc.mmap(0, {size}, {protection}, 0x4022, -1, 0) == 2**64 - 1 else 0)"
    assert status(LOCKED + take) == 17


def test_a_broker_keeps_no_stray_descriptor() -> None:
    check = "assert os.read(kept, 1) == b''\ntry: os.read(stray, 1)\nexcept OSError as error: os._exit(error.errno)"
    assert status(LOCKED + check) == 9  # EBADF


def test_a_process_without_privileges_cannot_be_dumped_or_traced() -> None:
    assert status(BEFORE + "before = libc.prctl(3); give_up_privileges(); os._exit(17 + before - libc.prctl(3))") == 18
