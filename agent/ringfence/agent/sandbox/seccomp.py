"""The system-call filters of a worker, as classic BPF programs.

Pure: names and numbers in, bytes out. A filter checks the architecture first, then allows exactly what is listed;
everything else kills the process with SIGSYS. Source: Linux, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct

# name: (x86_64, aarch64), from arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_NUMBERS: dict[str, tuple[int, int]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "exit": (60, 93),
    "sigaltstack": (131, 132),
    "prctl": (157, 167),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
}

# A running guest: memory, signals that the runtime turns into traps, the ring, random, clock, and the end.
RUNNING = (
    "read",
    "write",
    "mmap",
    "mprotect",
    "munmap",
    "mremap",
    "madvise",
    "brk",
    "futex",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigaction",
    "sigaltstack",
    "sched_yield",
    "getpid",
    "gettid",
    "tgkill",
    "restart_syscall",
    "clock_gettime",
    "getrandom",
    "exit",
    "exit_group",
)

# Compiling also makes code executable, and afterwards the worker narrows its own limits and filter.
COMPILING = (*RUNNING, "pread64", "close", "lseek", "membarrier", "sched_getaffinity", "prctl", "prlimit64")

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENTS = 0, 4, 16
_PROT_EXEC = 4

_Instruction = tuple[int, int, int, int]


def supported(machine: str) -> bool:
    """Whether there is a table of system-call numbers for `machine` (`os.uname().machine`)."""
    return machine in _AUDIT_ARCH


def program(machine: str, allowed: tuple[str, ...], *, own_pid: int, may_make_code: bool) -> bytes:
    """The filter as packed `struct sock_filter`.

    Without `may_make_code`, `mmap` and `mprotect` with PROT_EXEC kill. `tgkill` reaches `own_pid` only, so that an
    abort of the runtime ends as an abort.
    """
    column = list(_AUDIT_ARCH).index(machine)
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
    ]
    for name in allowed:
        number = _NUMBERS[name][column]
        if name in ("mmap", "mprotect") and not may_make_code:
            code += _when(number, 2, (_ANY_BIT, 0, 1, _PROT_EXEC), (_KILL_PROCESS, _ALLOW))
        elif name == "tgkill":
            code += _when(number, 0, (_EQUAL, 0, 1, own_pid), (_ALLOW, _KILL_PROCESS))
        else:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _KILL_PROCESS))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _when(number: int, argument: int, test: _Instruction, verdicts: tuple[int, int]) -> list[_Instruction]:
    """On system call `number`, `test` its argument (low 32 bits), then the verdict where it holds and where not."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8 * argument),
        test,
        (_RETURN, 0, 0, verdicts[0]),
        (_RETURN, 0, 0, verdicts[1]),
    ]
