"""The system-call filters of a job's processes, as classic BPF programs.

Pure: names and numbers in, bytes out. A filter checks the architecture first, then allows exactly what is listed;
everything else kills the process with SIGSYS. Where a system call can do harm by its arguments, those are allowed by
value too. Source: Linux, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

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

# A running guest, or its broker: memory, signals that the runtime turns into traps, the ring, random, clock, the end.
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

# Compiling also makes code executable, and afterwards the worker narrows its own memory and filter.
COMPILING = (*RUNNING, "pread64", "close", "lseek", "membarrier", "sched_getaffinity", "prctl", "prlimit64")

# include/uapi/linux/prctl.h
PR_SET_SECCOMP = 22

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENTS = 0, 4, 16
_U32 = 0xFFFF_FFFF

# include/uapi/asm-generic/mman-common.h; PROT_BTI is of aarch64, where the compiler marks its code with it.
_PROT_READ_WRITE, _PROT_EXEC, _PROT_BTI = 0x1 | 0x2, 0x4, 0x10
_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x02, 0x10, 0x20, 0x4000
_RLIMIT_DATA = 2

_Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Equals:
    """Argument `index`, which the kernel takes as 32 bits, is `value`."""

    index: int
    value: int

    def code(self) -> list[_Instruction]:
        return [_load(self.index, high=False), (_EQUAL, 1, 0, self.value), (_RETURN, 0, 0, _KILL_PROCESS)]


@dataclass(frozen=True, slots=True)
class _Only:
    """Argument `index`, which the kernel takes as 64 bits, has no bit that is not in `bits` (32 bits)."""

    index: int
    bits: int

    def code(self) -> list[_Instruction]:
        return [
            _load(self.index, high=False),
            (_ANY_BIT, 0, 1, ~self.bits & _U32),
            (_RETURN, 0, 0, _KILL_PROCESS),
            _load(self.index, high=True),
            (_ANY_BIT, 0, 1, _U32),
            (_RETURN, 0, 0, _KILL_PROCESS),
        ]


ANY_PID: Final = 0x7FFF_FFFF
"""No process's number (proc(5), pid_max): it stands for one that is not known yet."""


def supported(machine: str) -> bool:
    """Whether there is a table of system-call numbers for `machine` (`os.uname().machine`)."""
    return machine in _AUDIT_ARCH


def program(machine: str, allowed: tuple[str, ...], *, own_pid: int, may_make_code: bool) -> bytes:
    """The filter as packed `struct sock_filter`.

    Memory is private and, without `may_make_code`, never executable. `tgkill` reaches `own_pid` only, so that an abort
    of the runtime ends as an abort. `prctl` only adds a filter; `prlimit64` only changes the caller's own RLIMIT_DATA.
    """
    column = list(_AUDIT_ARCH).index(machine)
    conditions = _conditions(own_pid, may_make_code=may_make_code)
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
    ]
    for name in allowed:
        judged = [instruction for condition in conditions.get(name, ()) for instruction in condition.code()]
        judged.append((_RETURN, 0, 0, _ALLOW))
        code += [(_EQUAL, 0, len(judged), _NUMBERS[name][column]), *judged]
    code.append((_RETURN, 0, 0, _KILL_PROCESS))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def of_process(template: bytes, own_pid: int) -> bytes:
    """The filter for process `own_pid`, of one that was made for `ANY_PID` before that process was there."""
    return template.replace(_own_pid_test(ANY_PID), _own_pid_test(own_pid))


def _own_pid_test(pid: int) -> bytes:
    return struct.pack("<HBBI", _EQUAL, 1, 0, pid)


def _conditions(own_pid: int, *, may_make_code: bool) -> dict[str, tuple[_Equals | _Only, ...]]:
    """What must hold of the arguments of a system call, by its name."""
    protection = _Only(2, _PROT_READ_WRITE | (_PROT_EXEC | _PROT_BTI if may_make_code else 0))
    # Only private memory, and none that grows downwards: RLIMIT_DATA counts neither shared memory nor a stack.
    private = _Only(3, _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS | _MAP_NORESERVE)
    return {
        "mmap": (protection, private),
        "mprotect": (protection,),
        "tgkill": (_Equals(0, own_pid),),
        "prctl": (_Equals(0, PR_SET_SECCOMP),),
        # Process 0 is the caller: another's limits stay as they are, the agent's among them.
        "prlimit64": (_Equals(0, 0), _Equals(1, _RLIMIT_DATA)),
    }


def _load(index: int, *, high: bool) -> _Instruction:
    """Load one half of an argument (struct seccomp_data; both architectures are little-endian)."""
    return (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8 * index + 4 * high)
