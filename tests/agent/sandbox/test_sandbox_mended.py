"""What a job may cost others and leave out: its compilation, the agent's time, events, device work, claimed codes."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import wasmtime

from ringfence.agent import errors
from ringfence.agent.confine.shares import niceness
from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox import exchange, files, monitor
from ringfence.agent.sandbox.children import Child, Children
from ringfence.agent.sandbox.exchange import Refusal
from ringfence.agent.sandbox.levels import Level, ResultType
from ringfence.agent.sandbox.modules import Compiled, Modules, ModuleStore, Wanted, compiled_from, open_store
from ringfence.agent.sandbox.monitor import Sample, Watch, Watched
from ringfence.agent.sandbox.orders import CompileOrder, Order
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.agent.sandbox.results import MAX_JSON, check_result
from ringfence.agent.sandbox.validation import Report
from ringfence.agent.sandbox.verdicts import Verdict

Until = Callable[[Callable[[], bool]], Awaitable[None]]

MIB = 1 << 20
ACCEPTED = Verdict(Report(Level.HIGH, (), entry="command"), None)


def leb(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes((*parts, value))


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb(len(content)) + content


def command(functions: int, body: bytes) -> bytes:
    """A command of that many functions with one body."""
    code = b"\0" + body + b"\x0b"
    code = leb(len(code)) + code
    return b"".join(
        (
            *(b"\0asm\1\0\0\0", section(1, b"\1\x60\0\0"), section(3, leb(functions) + b"\0" * functions)),
            *(section(5, b"\1\0\1"), section(7, b"\2\6memory\2\0\6_start\0\0")),
            section(10, leb(functions) + code * functions),
        )
    )


# A few seconds to compile.
SLOW = command(20_000, b"\x41\x01\x1a" * 100)


class Watching(Children):
    """Keeps the compile children that it forks; kills one with `signal_number` once it works, if there is one."""

    def __init__(self, until: Until, signal_number: int) -> None:
        super().__init__()
        self.compilers: list[Child] = []
        self._until = until
        self._signal = signal_number

    async def fork(self, order: Callable[[int], Order], descriptors: Sequence[int]) -> Child:
        child = await super().fork(order, descriptors)
        if isinstance(order(0), CompileOrder):
            self.compilers.append(child)
            if self._signal:
                await self._until(lambda: child.pid > 0)
                os.kill(child.pid, self._signal)
        return child


@pytest.fixture
def watched(until: Until) -> Opened:
    """A sandbox, and its children."""

    @contextmanager
    def opened(signal_number: int = 0) -> Iterator[tuple[Watching, ProcessSandbox]]:
        with closing(Watching(until, signal_number)) as children, closing(ProcessSandbox(children)) as sandbox:
            yield children, sandbox

    return opened


Opened = Callable[..., AbstractContextManager[tuple[Watching, ProcessSandbox]]]


async def failure(sandbox: ProcessSandbox, job: GuestJob) -> GuestError:
    with pytest.raises(GuestError) as caught:
        await sandbox.run(job)
    return caught.value


async def test_a_compiler_has_its_jobs_share_and_is_listed(watched: Opened, limits: Limits, until: Until) -> None:
    with watched() as (children, sandbox):
        job = GuestJob(SLOW, b"", replace(limits, compute_units=16), job_id="slow")
        running = asyncio.create_task(sandbox.run(job))
        await until(lambda: bool(children.compilers) and children.compilers[0].pid > 0)
        pid = children.compilers[0].pid
        await until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == niceness(16) + os.nice(0))
        (active,) = sandbox.active_kernels()
        assert (active.job_id, active.limits.compute_units, active.usage.cpu_ms) == ("slow", 16, 0)
        assert active.usage.wall_ms > 0
        running.cancel()
        await asyncio.wait({running})
        assert sandbox.active_kernels() == ()


@pytest.mark.parametrize("number", [signal.SIGXCPU, signal.SIGABRT], ids=["time", "memory"])
async def test_a_module_that_its_compiler_dies_of_is_compiled_once(
    watched: Opened, limits: Limits, number: int
) -> None:
    with watched(number) as (children, sandbox):
        ends = [await failure(sandbox, GuestJob(SLOW, b"", limits)) for _ in range(3)]
        assert {(end.code, end.field) for end in ends} == {(errors.MODULE_INVALID, "module")}
        assert len(children.compilers) == 1
        assert ends[0].usage.cpu_ms > 0
        assert [end.usage.cpu_ms for end in ends[1:]] == [0, 0]


async def test_a_compiler_that_somebody_kills_proves_nothing_of_the_module(watched: Opened, limits: Limits) -> None:
    with watched(signal.SIGKILL) as (children, sandbox):
        assert [(await failure(sandbox, GuestJob(SLOW, b"", limits))).code for _ in range(2)] == [
            errors.WORKER_LOST
        ] * 2
        assert len(children.compilers) == 2
    with watched() as (children, sandbox):
        late = replace(limits, deadline_ms=300)
        assert [(await failure(sandbox, GuestJob(SLOW, b"", late))).code for _ in range(2)] == [errors.DEADLINE] * 2
        assert len(children.compilers) == 2


async def test_a_refusal_that_is_kept_costs_its_next_sender_nothing(watched: Opened, limits: Limits) -> None:
    refused = bytes(wasmtime.wat2wasm('(module (import "env" "absent" (func)))'))
    with watched() as (children, sandbox):
        ends = [await failure(sandbox, GuestJob(refused, b"", limits)) for _ in range(2)]
        assert len(children.compilers) == 1
    assert ends[0].usage.cpu_ms > 0
    assert ends[1].usage.cpu_ms == 0


@pytest.fixture
def store(tmp_path: Path) -> ModuleStore:
    opened = open_store(tmp_path / "modules", MIB)
    assert opened is not None
    return opened


class Stuck(ModuleStore):
    """A disk that does not answer until the test says so: when it is read, or when it is written."""

    def __init__(self, folder: Path, *, reading: bool) -> None:
        super().__init__(folder, (folder.parent / "modules.key").read_bytes(), MIB)
        self.answers = threading.Event()
        self._reading = reading

    def load(self, name: str) -> tuple[Verdict, bytes | memoryview] | None:
        if self._reading:
            self.answers.wait(10)
        return super().load(name)

    def save(self, name: str, verdict: Verdict, code: bytes | memoryview | mmap.mmap) -> None:
        if not self._reading:
            self.answers.wait(10)
        super().save(name, verdict, code)


async def compiles(_wanted: Wanted, stack: ExitStack) -> Compiled:
    return Compiled(ACCEPTED, files.sealed(stack, "compiled", b"native"), 6, 6, 1.0)


async def code_of(modules: Modules, wanted: Wanted) -> bytes:
    with ExitStack() as stack:
        return os.pread((await modules.get(wanted, stack)).descriptor, 100, 0)


WANTED = Wanted(b"module", Level.HIGH, MIB, 0)


async def test_a_disk_that_does_not_answer_holds_neither_the_loop_nor_a_deadline(
    store: ModuleStore, tmp_path: Path, until: Until
) -> None:
    with closing(Modules(compiles, store)) as modules:
        await code_of(modules, WANTED)
    before = len(os.listdir("/proc/self/fd"))
    disk = Stuck(tmp_path / "modules", reading=True)
    with closing(Modules(compiles, disk)) as modules:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(code_of(modules, WANTED), 0.05)
        disk.answers.set()
        assert await code_of(modules, WANTED) == b"native"
    # What came too late for the first is closed as well.
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_nobody_waits_for_what_is_saved_but_the_end(store: ModuleStore, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    disk = Stuck(tmp_path / "modules", reading=False)
    with closing(Modules(compiles, disk)) as modules:
        for number in range(20):
            assert await code_of(modules, replace(WANTED, code=b"%d" % number)) == b"native"
        assert not list((tmp_path / "modules").iterdir())
        disk.answers.set()
    # Of so many at a time not all are kept, and all that are kept are whole.
    saved = list((tmp_path / "modules").iterdir())
    assert 1 < len(saved) < 20
    assert all(store.load(path.stem) == (ACCEPTED, b"native") for path in saved)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_folder_is_looked_through_seldom(store: ModuleStore, tmp_path: Path) -> None:
    store.save("0" * 64, ACCEPTED, b"x")
    (tmp_path / "modules" / ("f" * 64 + ".module")).mkdir()
    folder = tmp_path / "modules"
    for number in range(100):
        store.save(f"{number:064d}", ACCEPTED, bytes(30_000))
    kept = sorted(path.name for path in folder.glob("*.module") if path.is_file())
    assert sum((folder / name).stat().st_size for name in kept) <= MIB
    assert len(kept) > 25
    assert f"{99:064d}.module" in kept


def test_what_a_killed_agent_was_saving_is_removed_at_the_next_start(store: ModuleStore, tmp_path: Path) -> None:
    half = tmp_path / "modules" / f"{'a' * 64}.77.new"
    half.write_bytes(b"half an entry")
    store.save("b" * 64, ACCEPTED, b"native")
    again = open_store(tmp_path / "modules", MIB)
    assert again is not None
    assert not half.exists()
    assert again.load("b" * 64) == (ACCEPTED, b"native")


async def _longest_stall(work: Callable[[], object]) -> float:
    """How long the loop stood still while another thread did something, as a share of what that took, at most 1."""
    worst, stop = 0.0, False

    async def tick() -> None:
        nonlocal worst
        while not stop:
            before = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - before)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    started = time.perf_counter()
    await asyncio.to_thread(work)
    stop = True
    await ticking
    return worst / (time.perf_counter() - started)


async def test_checking_a_large_result_leaves_the_loop_its_turns() -> None:
    """One piece would hold every other thread for as long as it takes."""
    numbers = bytes(64 * MIB)
    assert await _longest_stall(lambda: check_result(numbers, ResultType.F32, Level.HIGH)) < 0.5


@pytest.mark.parametrize("kind", [ResultType.F32, ResultType.F64])
def test_a_nan_is_found_wherever_it_is(kind: ResultType) -> None:
    size = 4 if kind is ResultType.F32 else 8
    nan = struct.pack("<f" if size == 4 else "<d", float("nan"))
    for at in (0, 256 * 1024 - size, 256 * 1024, MIB - size):
        output = bytearray(MIB)
        output[at : at + size] = nan
        with pytest.raises(SandboxError, match="NaN"):
            check_result(bytes(output), kind, Level.HIGH)
    check_result(bytes(MIB), kind, Level.HIGH)


def test_json_has_a_longest_length() -> None:
    longest = b"[" + b" " * (MAX_JSON - 2) + b"]"
    check_result(longest, ResultType.JSON, Level.HIGH)
    with pytest.raises(SandboxError, match=f"it has {MAX_JSON + 1} bytes") as caught:
        check_result(longest + b" ", ResultType.JSON, Level.HIGH)
    assert (caught.value.code, caught.value.field) == (errors.RESULT_INVALID, "result")


def test_no_guest_floods_the_log_with_what_comes_and_goes() -> None:
    start = Sample(0, 0, 0, 0, 0, 0)
    for kills in (frozenset[Watched](), frozenset({Watched.MEMORY})):
        state, commands = monitor.begin(start), 0
        told: list[monitor.Event] = []
        for look in range(1, 601):
            commands += 1000 * (look % 2)
            sample = replace(start, time_ns=look * 10**8, commands=commands, memory_bytes=1000 * (look == 600))
            state, events = monitor.observe(state, sample, Watch(0, 999, 1000, 0, kills))
            told += events
        assert [event.watched for event in told] == [Watched.COMMANDS] * monitor.MOST_TOLD + [Watched.MEMORY]
        assert told[-1].kill == bool(kills)


def test_a_monitor_kills_also_for_what_it_has_told_too_often() -> None:
    start = Sample(0, 0, 0, 0, 0, 0)
    state = monitor.begin(start)
    for look in range(1, 41):
        sample = replace(start, time_ns=look * 10**8, memory_bytes=look % 2 * 10)
        watch = Watch(memory_bytes=5, kills=frozenset({Watched.MEMORY} if look == 39 else ()))
        state, events = monitor.observe(state, sample, watch)
        assert [event.kill for event in events] == (
            [look == 39] if look % 2 and (look < 2 * monitor.MOST_TOLD or look == 39) else []
        )


def test_a_host_that_hides_processes_is_watched_by_nothing_and_fails_nothing(tmp_path: Path) -> None:
    class Hidden(type(tmp_path)):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            raise PermissionError(13, "Permission denied")

    assert monitor.read_sample(7, memoryview(bytes(64)), 0, Hidden(tmp_path)) is None


GATES = """(module (import "ringfence" "quantum_gate" (func $gate (param i32 i32 f64) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (loop $l (drop (call $gate (i32.const 1) (i32.const 0) (f64.const 0))) (br $l))))"""


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_busy_broker_ends_with_its_worker_and_what_it_did_is_known(
    sandbox: ProcessSandbox, limits: Limits, cancelled: bool
) -> None:
    within = replace(limits, qubits=16, deadline_ms=700)
    job = GuestJob(bytes(wasmtime.wat2wasm(GATES)), b"", within)
    started = time.monotonic()
    if cancelled:
        running = asyncio.create_task(sandbox.run(job))
        await asyncio.sleep(0.5)
        running.cancel()
        await asyncio.wait({running})
    else:
        error = await failure(sandbox, job)
        assert error.code == errors.DEADLINE
        assert error.usage.gates > 10
        assert error.usage.commands == error.usage.gates
    assert time.monotonic() - started < 1.6


@pytest.mark.parametrize("code", sorted(exchange.CODES))
def test_each_role_says_only_what_it_can_come_to(code: str) -> None:
    said = exchange.Report(refusal=Refusal(code, "Says who?"))
    head = exchange.encode_head(0, exchange.PHASE_RUNNING, said)
    if code in exchange.WORKER_CODES:
        assert exchange.decode_head(head).report == said
    else:
        with pytest.raises(SandboxError) as caught:
            exchange.decode_head(head)
        assert caught.value.code == errors.WORKER_LOST
    with ExitStack() as stack:
        verdict, compiled = files.growing(stack, "verdict"), files.growing(stack, "compiled")
        os.write(verdict, msgspec.json.encode(Verdict(None, Refusal(code, "Says who?"))))
        assert (compiled_from(verdict, compiled, 0.0) is not None) == (code in exchange.COMPILER_CODES)


def test_what_only_the_kernel_or_the_agent_knows_nobody_else_can_claim() -> None:
    own = {
        *(errors.DEADLINE, errors.CANCELLED, errors.SYSCALL_DENIED, errors.WORKER_LOST, errors.PROCESS_STUCK),
        *(errors.LOCKDOWN_FAILED, errors.PROTECTION_MISSING, errors.MONITOR_KILLED, errors.RESULT_INVALID),
        errors.LIMIT_OUT_OF_RANGE,
    }
    assert {code.name for code in own} == set(exchange.CODES) - exchange.WORKER_CODES - exchange.COMPILER_CODES


def test_a_compiler_that_accepts_and_leaves_nothing_has_no_verdict() -> None:
    with ExitStack() as stack:
        verdict, compiled = files.growing(stack, "verdict"), files.growing(stack, "compiled")
        os.write(verdict, msgspec.json.encode(ACCEPTED))
        assert compiled_from(verdict, compiled, 0.0) is None
