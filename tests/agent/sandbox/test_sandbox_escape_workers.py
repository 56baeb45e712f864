"""A worker, or a compiler, whose code is hostile can still do nothing: native code stands in for an escaped guest."""

from __future__ import annotations

import runpy
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent import errors
from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.endings import MOST_COUNTED
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits, Outcome
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.errors import Code

Beside = Callable[[ProcessSandbox, GuestJob], Awaitable[Outcome | SandboxError]]

HERE = Path(__file__).parent
CALLS, ATTACKS = (runpy.run_path(str(HERE / name)) for name in ("hostile_calls.py", "hostile_ring.py"))
DENIED = sorted(CALLS["DENIED"])
PLAIN = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
RINGED = bytes(
    wasmtime.wat2wasm("""(module (import "ringfence" "amd_gpu_sync" (func (param i32) (result i32)))
      (memory (export "memory") 1) (func (export "_start")))""")
)


def attack(name: str, limits: Limits, module: bytes = RINGED) -> GuestJob:
    return GuestJob(module, f"attack {name}".encode(), limits)


def survived(end: Outcome | SandboxError) -> bytes:
    assert isinstance(end, Outcome), end
    return end.output


def code(end: Outcome | SandboxError) -> Code:
    assert isinstance(end, GuestError), end
    assert end.usage.peak_memory_bytes <= 4 << 20
    return end.code


async def test_a_harmless_worker_survives(hostile: ProcessSandbox, beside: Beside, limits: Limits) -> None:
    assert survived(await beside(hostile, attack("nothing", limits))) == b"survived"


@pytest.mark.parametrize("name", DENIED)
async def test_a_worker_dies_of_it(name: str, hostile: ProcessSandbox, beside: Beside, limits: Limits) -> None:
    assert code(await beside(hostile, attack(name, limits))) == errors.SYSCALL_DENIED


REFUSED = {
    "a gibibyte": b"MemoryError",
    "page tables": b"OSError",
    "write the input": b"PermissionError",
    "write the module": b"PermissionError",
    "write the reply file": b"OSError",
    "unprotect the reply": b"PermissionError",
    "grow the result": b"PermissionError",
    "grow its last words": b"OSError",
}
DEADLY = (
    "write the reply's memory",
    "stretch the progress page",
    "unmap everything",
    "follow a wild pointer",
    "abort",
    "kill itself",
    "end at once",
    "end badly",
    "end with words",
)
ENDLESS = ("never end", "never end, deaf", "never answer", "burn system calls")


def test_every_action_is_tried() -> None:
    of_compilers = {"all that its ceiling allows", "no limit of memory", "executable mmap"}
    tried = {"nothing", "lie about its progress", *REFUSED, *DEADLY, *ENDLESS, *of_compilers}
    assert tried == CALLS["OTHERS"].keys()
    assert RING.keys() | {"answers unread"} == ATTACKS["ATTACKS"].keys()
    assert len(DENIED) > 100


@pytest.mark.parametrize(("name", "refusal"), REFUSED.items())
async def test_the_kernel_refuses_it(
    name: str, refusal: bytes, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    assert survived(await beside(hostile, attack(name, limits))) == refusal


@pytest.mark.parametrize("name", DEADLY)
async def test_a_worker_that_dies_in_another_way_is_no_denial(
    name: str, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    assert code(await beside(hostile, attack(name, limits))) == errors.WORKER_LOST


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_worker_that_does_not_end_is_killed_at_its_deadline(
    name: str, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    late = replace(limits, deadline_ms=250)
    assert code(await beside(hostile, attack(name, late))) == errors.DEADLINE


async def test_no_progress_that_is_a_lie_is_counted_beyond_reason(
    hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    end = await beside(hostile, attack("lie about its progress", limits))
    assert isinstance(end, Outcome)
    assert end.usage.checkpoints == MOST_COUNTED


def head(report: bytes, *, peak: bytes = bytes(8), length: int | None = None) -> bytes:
    size = len(report) if length is None else length
    return peak + b"\1\0\0\0" + size.to_bytes(4, "little") + report


@pytest.mark.parametrize(
    ("lie", "ending"),
    [
        (b"\xff" * 4096, errors.WORKER_LOST),
        (head(b"{}", length=4096), errors.WORKER_LOST),
        (head(b"{}", length=2**32 - 1), errors.WORKER_LOST),
        (head(b"{}", length=1), errors.WORKER_LOST),
        (head(b'{"output_bytes": 1, "output_bytes": "x"}'), errors.WORKER_LOST),
        (head(b'{"made": "up"}'), errors.WORKER_LOST),
        (head(b'{"output_bytes": 1e400}'), errors.WORKER_LOST),
        (head(b'{"output_bytes": ' + b"[" * 2000), errors.WORKER_LOST),
        (head(b'{"refusal": {"code": "made.up", "message": ""}}'), errors.WORKER_LOST),
        (head(b'{"refusal": {"code": "grant.forged", "message": ""}}'), errors.WORKER_LOST),
        (head(b'{"refusal": {"code": "sandbox.trap", "message": "\xff"}}'), errors.WORKER_LOST),
        (head(b'{"refusal": {"code": "sandbox.trap", "message": "a\\nb\\u001b[2J"}}'), errors.GUEST_TRAP),
        (head(b'{"output_bytes": 4097}'), errors.OUTPUT_LIMIT),
        (head(b'{"output_bytes": 99999999999999999999}'), errors.OUTPUT_LIMIT),
        (head(b'{"output_bytes": -1}'), errors.OUTPUT_LIMIT),
        (head(b'{"refusal": {"code": "sandbox.trap", "message": ""}}', peak=b"\xff" * 8), errors.GUEST_TRAP),
    ],
)
async def test_a_worker_that_lies_about_its_end(
    lie: bytes, ending: Code, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    end = await beside(hostile, GuestJob(PLAIN, b"lie " + lie, limits))
    assert code(end) == ending
    assert isinstance(end, GuestError)
    assert end.message.isprintable()


async def test_no_peak_beyond_the_limit_is_believed(hostile: ProcessSandbox, limits: Limits) -> None:
    outcome = await hostile.run(GuestJob(PLAIN, b"lie " + head(b"{}", peak=b"\xff" * 8), limits))
    assert outcome.usage.peak_memory_bytes == limits.memory_bytes


async def test_the_last_of_two_answers_counts(hostile: ProcessSandbox, beside: Beside, limits: Limits) -> None:
    assert survived(await beside(hostile, GuestJob(PLAIN, b"twice answered", limits))) == b"answered"


# What the broker answers, and how many gates it has applied.
RING = {
    "work": (b"accepted,accepted", 1),
    "a head that is announced twice": (b"accepted,accepted", 1),
    "a head that goes backwards": (b"accepted,sandbox.broker_protocol", 4),
    "rewritten behind its back": (b"answered", 0),
} | dict.fromkeys(
    (
        "forged byte by byte",
        "a head beyond the ring",
        "a head beyond all numbers",
        "a message cut short",
        "a message too long",
        "a message far too long",
        "a gap of nothing",
        "a payload beyond the batch",
    ),
    (b"sandbox.broker_protocol", 0),
)


@pytest.mark.parametrize("name", RING)
async def test_a_broker_answers_each_lie_in_its_ring(
    name: str, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    end = await beside(hostile, attack(name, limits))
    assert isinstance(end, Outcome), end
    assert (end.output, end.usage.gates) == RING[name]
    # The worker says that all went well; its broker tells of the attempt. One of them is a race, which it may lose.
    if name != "rewritten behind its back":
        assert bool(end.usage.forged_batches) == (b"broker_protocol" in end.output)


async def test_a_worker_that_reads_no_answer_is_killed_at_its_deadline(
    hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    assert code(await beside(hostile, attack("answers unread", replace(limits, deadline_ms=300)))) == errors.DEADLINE


COMPILING = [
    *("open", "create", "socket", "fork", "clone3", "execve", "kill", "kill everybody", "tgkill the zygote", "ptrace"),
    *("process_vm_readv", "io_uring_setup", "memfd_create", "bpf", "unshare", "mount", "keyctl", "seccomp"),
    *("become dumpable", "outlive the zygote", "raise a limit", "the zygote's limits", "shared memory", "dup"),
    *("a stack of its own", "a flag in the upper half", "ftruncate", "pwrite64", "setrlimit", "nanosleep"),
]


@pytest.mark.parametrize("name", COMPILING)
async def test_a_loader_of_hostile_code_dies_of_it(
    name: str, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    end = await beside(hostile, GuestJob(RINGED, f"load {name}".encode(), limits))
    assert code(end) == errors.SYSCALL_DENIED


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("executable mmap", b"survived"),
        ("page tables", b"OSError"),
        ("no limit of memory", b"ValueError"),
        ("all that its ceiling allows", b"OSError"),
    ],
)
async def test_what_a_loader_may_do(
    name: str, said: bytes, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    assert survived(await beside(hostile, GuestJob(RINGED, f"load {name}".encode(), limits))) == said


@pytest.mark.parametrize("name", COMPILING)
async def test_a_compiler_dies_of_it(name: str, hostile: ProcessSandbox, beside: Beside, limits: Limits) -> None:
    assert code(await beside(hostile, attack_compiler(name, limits))) == errors.SYSCALL_DENIED


def attack_compiler(name: str, limits: Limits) -> GuestJob:
    return GuestJob(f"attack {name}".encode(), b"", limits)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "survived"),
        ("executable mmap", "survived"),
        ("page tables", "OSError"),
        ("no limit of memory", "ValueError"),
        ("all that its ceiling allows", "OSError"),
    ],
)
async def test_what_a_compiler_may_do(
    name: str, said: str, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    end = await beside(hostile, attack_compiler(name, limits))
    assert isinstance(end, GuestError)
    assert (end.code, end.message) == (errors.MODULE_REFUSED, said)


@pytest.mark.parametrize(
    ("verdict", "ending"),
    [
        (b"", errors.WORKER_LOST),
        (b"\xff" * 100, errors.WORKER_LOST),
        (b'{"report": null, "refusal": null}', errors.WORKER_LOST),
        (b'{"report": null, "refusal": {"code": "made.up", "message": ""}}', errors.WORKER_LOST),
        (
            b'{"report": {"level": "high", "findings": [], "imports": [["ringfence", "made_up"]], "entry": "command"},'
            b' "refusal": null}',
            errors.WORKER_LOST,
        ),
        (
            b'{"report": {"level": "high", "findings": [], "entry": "command"}, "refusal": null}',
            errors.WORKER_LOST,
        ),
    ],
)
async def test_a_compiler_that_lies_about_a_module(
    verdict: bytes, ending: Code, hostile: ProcessSandbox, beside: Beside, limits: Limits
) -> None:
    """The last one is believed and brings no native code: the worker says so, and ends."""
    assert code(await beside(hostile, GuestJob(b"lie " + verdict, b"", limits))) == ending
