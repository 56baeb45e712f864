"""The system-call filters, judged by an interpreter of classic BPF: on both architectures, argument by argument."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.agent.confine import seccomp

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MMAP, MPROTECT, TGKILL = {"x86_64": 9, "aarch64": 222}, {"x86_64": 10, "aarch64": 226}, {"x86_64": 234, "aarch64": 131}
PRCTL, PRLIMIT = {"x86_64": 157, "aarch64": 167}, {"x86_64": 302, "aarch64": 261}
OWN_PID = 4711
UPPER = 1 << 32
KILL, ALLOW = 0x80000000, 0x7FFF0000

words = st.integers(0, 2**64 - 1)
machines = pytest.mark.parametrize("machine", list(ARCHITECTURES))


def verdict(code: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel answers: the instructions that the filters use, over struct seccomp_data (linux/seccomp.h)."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("<HBBI", code))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, value = instructions[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x45:
                at += if_true if accumulator & value else if_false
            case 0x06:
                return int(value)
            case _:
                pytest.fail(f"no filter has the operation {operation:#x}")


def judge(machine: str, numbers: dict[str, int], *arguments: int, compiling: bool = False) -> bool:
    """Whether a call is allowed."""
    allowed = seccomp.COMPILING if compiling else seccomp.RUNNING
    code = seccomp.program(machine, allowed, own_pid=OWN_PID, may_make_code=compiling)
    return verdict(code, ARCHITECTURES[machine], numbers[machine], *arguments) == ALLOW


@machines
@pytest.mark.parametrize("compiling", [False, True])
def test_a_filter_made_before_its_process_is_that_process_s(machine: str, compiling: bool) -> None:
    allowed = seccomp.COMPILING if compiling else seccomp.RUNNING
    template = seccomp.program(machine, allowed, own_pid=seccomp.ANY_PID, may_make_code=compiling)
    known = seccomp.program(machine, allowed, own_pid=OWN_PID, may_make_code=compiling)
    assert seccomp.of_process(template, OWN_PID) == known


@machines
@pytest.mark.parametrize("compiling", [False, True])
def test_a_filter_allows_what_a_runtime_does(machine: str, compiling: bool) -> None:
    for flags in (0x22, 0x4022, 0x32, 0x02):
        assert judge(machine, MMAP, 0, 4096, 3, flags, 2**64 - 1, 0, compiling=compiling)
    assert judge(machine, MMAP, 2**47 - 4096, 4096, 0, 0x22, compiling=compiling)
    assert judge(machine, MPROTECT, 2**47 - 4096, 4096, 1, compiling=compiling)
    assert judge(machine, TGKILL, OWN_PID, 1, 6, compiling=compiling)


@machines
def test_only_a_compiler_makes_code(machine: str) -> None:
    for numbers, arguments in ((MMAP, (0, 4096, 5, 0x22)), (MPROTECT, (4096, 4096, 5))):
        assert judge(machine, numbers, *arguments, compiling=True)
        assert not judge(machine, numbers, *arguments)


@machines
@pytest.mark.parametrize("compiling", [False, True])
@given(flags=words)
def test_memory_is_private_and_grows_nowhere(machine: str, compiling: bool, flags: int) -> None:
    expected = flags & ~(0x02 | 0x10 | 0x20 | 0x4000) == 0
    assert judge(machine, MMAP, 0, 4096, 3, flags, compiling=compiling) == expected


@machines
@pytest.mark.parametrize("flags", [0x21, 0x23, 0x122, 0x01, 0x40022, 0x22 | UPPER])
@pytest.mark.parametrize("compiling", [False, True])
def test_shared_memory_kills(machine: str, compiling: bool, flags: int) -> None:
    assert not judge(machine, MMAP, 0, 4096, 3, flags, compiling=compiling)


@machines
@given(protection=words)
def test_memory_that_runs_is_read_and_written_only(machine: str, protection: int) -> None:
    for numbers in (MMAP, MPROTECT):
        assert judge(machine, numbers, 0, 4096, protection, 0x22) == (protection <= 3)


@machines
def test_an_upper_half_counts_where_the_kernel_takes_64_bits(machine: str) -> None:
    for compiling in (False, True):
        assert not judge(machine, MMAP, 0, 4096, 3 | UPPER, 0x22, compiling=compiling)
        assert not judge(machine, MPROTECT, 0, 4096, 3 | UPPER, compiling=compiling)


@machines
@given(pid=words | st.just(UPPER), limit=words | st.just(2))
@example(pid=1, limit=2)
@example(pid=0, limit=7)
def test_a_compiler_changes_its_own_memory_limit_only(machine: str, pid: int, limit: int) -> None:
    # The kernel takes both as 32 bits, whatever a register's upper half holds.
    expected = pid % UPPER == 0 and limit % UPPER == 2
    assert judge(machine, PRLIMIT, pid, limit, compiling=True) == expected
    assert judge(machine, PRLIMIT, 0, 2, compiling=True)
    assert not judge(machine, PRLIMIT, 0, 2)


@machines
@given(option=words | st.just(UPPER | 22))
def test_a_compiler_may_only_add_a_filter(machine: str, option: int) -> None:
    assert judge(machine, PRCTL, option, compiling=True) == (option % UPPER == 22)
    assert judge(machine, PRCTL, 22, 2, compiling=True)
    assert not judge(machine, PRCTL, 22, 2)


@machines
@given(number=st.integers(0, 2**31 - 501), architecture=st.integers(0, 2**32 - 1), arguments=st.tuples(*[words] * 6))
def test_anything_else_kills(machine: str, number: int, architecture: int, arguments: tuple[int, ...]) -> None:
    code = seccomp.program(machine, seccomp.COMPILING, own_pid=OWN_PID, may_make_code=True)
    if architecture != ARCHITECTURES[machine]:
        assert verdict(code, architecture, number, *arguments) == KILL
    assert verdict(code, ARCHITECTURES[machine], number + 500, *arguments) == KILL
