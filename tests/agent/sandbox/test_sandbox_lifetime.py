"""A job leaves no process, descriptor or file behind, however it ends."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent.errors import DEADLINE, PROCESS_STUCK, WORKER_LOST, SandboxError
from ringfence.agent.sandbox.children import Child, Children
from ringfence.agent.sandbox.orders import CompileOrder, DevicesOrder, GuestOrder, Order
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox, Settings, open_sandbox

Find = Callable[[int], set[int]]
Waiting = Callable[[], dict[int, set[int]]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]

FOREVER = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'))
NOTHING = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
RINGED_FOREVER = bytes(
    wasmtime.wat2wasm("""(module (import "ringfence" "amd_gpu_sync" (func $sync (param i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (drop (call $sync (i32.const 0))) (loop $l (br $l))))""")
)


class Nothing:
    """What this process has now; `left` says what there is more of."""

    def __init__(self, descendants: Find) -> None:
        self._descendants = descendants
        self._before = self._count()

    def left(self) -> bool:
        now = self._count()
        # A waiting child that is not forked yet is none too many.
        return now[0] > self._before[0] or now[1] != self._before[1] or now[2] > self._before[2]

    def _count(self) -> tuple[int, int, int]:
        maps = Path("/proc/self/maps").read_text().count("memfd:")
        return len(self._descendants(os.getpid())), len(os.listdir("/proc/self/fd")), maps


@pytest.fixture
async def nothing(
    sandbox: ProcessSandbox, limits: Limits, neighbour: GuestJob, descendants: Find, waiting: Waiting, until: Until
) -> Nothing:
    """What there is between jobs, with the modules of these tests compiled."""
    await sandbox.run(neighbour)
    late = replace(limits, deadline_ms=100)
    for module in (NOTHING, FOREVER, RINGED_FOREVER):
        await asyncio.gather(sandbox.run(GuestJob(module, b"", late)), return_exceptions=True)
    await until(lambda: all(len(pids) == 2 for pids in waiting().values()))
    return Nothing(descendants)


async def _failure(sandbox: ProcessSandbox, job: GuestJob) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        await sandbox.run(job)
    return caught.value


async def test_many_jobs_in_a_row_leave_nothing(
    sandbox: ProcessSandbox, limits: Limits, neighbour: GuestJob, nothing: Nothing, until: Until
) -> None:
    for _ in range(15):
        await sandbox.run(GuestJob(NOTHING, b"", limits))
        await sandbox.run(neighbour)
    await until(lambda: not nothing.left())


async def test_jobs_run_side_by_side(sandbox: ProcessSandbox, limits: Limits, nothing: Nothing, until: Until) -> None:
    late = replace(limits, deadline_ms=300)
    jobs = [GuestJob(NOTHING, b"", limits), GuestJob(FOREVER, b"", late), GuestJob(b"garbage", b"", limits)]
    ends = await asyncio.gather(*map(sandbox.run, jobs), return_exceptions=True)
    assert [isinstance(end, SandboxError) for end in ends] == [False, True, True]
    await until(lambda: not nothing.left())


@pytest.mark.parametrize("module", [FOREVER, RINGED_FOREVER])
@pytest.mark.parametrize("after", [0.0, 0.002, 0.05])
async def test_cancelling_kills_the_job(
    sandbox: ProcessSandbox, limits: Limits, module: bytes, after: float, nothing: Nothing, until: Until
) -> None:
    task = asyncio.create_task(sandbox.run(GuestJob(module, b"", limits)))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.active_kernels() == ()
    await until(lambda: not nothing.left())


async def test_a_job_cancelled_twice_is_still_reaped(
    sandbox: ProcessSandbox, limits: Limits, nothing: Nothing, until: Until
) -> None:
    task = asyncio.create_task(sandbox.run(GuestJob(RINGED_FOREVER, b"", limits)))
    await until(lambda: len(sandbox.active_kernels()) == 1)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not nothing.left())


async def test_an_agent_without_descriptors_left_leaks_none(
    neighbour: GuestJob, descendants: Find, until: Until
) -> None:
    with open_sandbox() as sandbox:
        await sandbox.run(neighbour)
        before = len(os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        codes = []
        for spare in range(24):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, hard))
            try:
                await sandbox.run(neighbour)
            except SandboxError as error:
                codes.append(error.code)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await sandbox.run(neighbour)
            await until(lambda: len(os.listdir("/proc/self/fd")) == before)
            assert len(descendants(os.getpid())) <= 12
        assert set(codes) == {WORKER_LOST}
        assert len(codes) < 24


async def test_a_worker_that_breaks_says_why(hostile: ProcessSandbox, limits: Limits) -> None:
    error = await _failure(hostile, GuestJob(NOTHING, b"attack end with words", limits))
    assert error.code == WORKER_LOST
    assert error.message == "The worker ended with status 1 and left no result (no runtime   here)."


class Withheld(Children):
    """Tells of no end of the children of one kind until `wake`, and does not kill them: as ones that sleep in the
    kernel."""

    def __init__(self, kind: type[Order]) -> None:
        super().__init__()
        self._kind = kind
        self._held: list[tuple[Child, Child]] = []

    async def fork(self, order: Callable[[int], Order], descriptors: Sequence[int]) -> Child:
        child = await super().fork(order, descriptors)
        if not isinstance(order(0), self._kind):
            return child
        self._held.append((child, Child(child.number, asyncio.get_running_loop())))
        return self._held[-1][1]

    async def wake(self) -> None:
        for child, held in self._held:
            child.kill()
            held.end(await asyncio.wait_for(child.ended, 10))


@pytest.fixture
async def stuck(request: pytest.FixtureRequest) -> AsyncIterator[Withheld]:
    with closing(Withheld(request.param)) as children:
        yield children


each_kind = pytest.mark.parametrize(
    ("stuck", "named"), [(GuestOrder, "worker"), (DevicesOrder, "device broker")], indirect=["stuck"]
)


@each_kind
async def test_a_process_that_cannot_be_killed_does_not_hold_the_answer(
    stuck: Withheld, named: str, limits: Limits, descendants: Find, until: Until
) -> None:
    at_rest = len(descendants(os.getpid()))
    sandbox = ProcessSandbox(stuck, settings=Settings(kill_grace_s=0.1))
    started = time.monotonic()
    error = await _failure(sandbox, GuestJob(RINGED_FOREVER, b"", replace(limits, deadline_ms=300)))
    assert time.monotonic() - started < 5
    assert error.code == PROCESS_STUCK
    assert f"The job's {named} did not end" in error.message
    assert isinstance(error, GuestError)
    assert error.usage.wall_ms > 0
    await stuck.wake()
    await until(lambda: len(descendants(os.getpid())) <= at_rest + 2)
    sandbox.close()


@each_kind
async def test_cancelling_a_job_that_cannot_be_killed(
    stuck: Withheld, named: str, limits: Limits, until: Until
) -> None:
    sandbox = ProcessSandbox(stuck, settings=Settings(kill_grace_s=0.1))
    task = asyncio.create_task(sandbox.run(GuestJob(RINGED_FOREVER, b"", limits)))
    await until(lambda: len(sandbox.active_kernels()) == 1)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled(), named
    await stuck.wake()
    sandbox.close()


@pytest.mark.parametrize("stuck", [CompileOrder], indirect=True)
async def test_a_compiler_that_cannot_be_killed_does_not_hold_the_answer(stuck: Withheld, limits: Limits) -> None:
    sandbox = ProcessSandbox(stuck, settings=Settings(kill_grace_s=0.1))
    error = await _failure(sandbox, GuestJob(NOTHING, b"", replace(limits, deadline_ms=200)))
    assert error.code == DEADLINE
    await stuck.wake()
    sandbox.close()


async def test_a_zygote_that_does_not_answer_holds_nobody(limits: Limits, waiting: Waiting, until: Until) -> None:
    """It is stopped, as by a debugger; the worker is killed without it, and the answer says that nobody saw it end."""
    others = waiting().keys()
    with open_sandbox(settings=lambda _: Settings(kill_grace_s=0.2)) as sandbox:
        job = GuestJob(FOREVER, b"", replace(limits, deadline_ms=500))
        running = asyncio.create_task(_failure(sandbox, job))
        await until(lambda: len(sandbox.active_kernels()) == 1)
        await until(lambda: sandbox.active_kernels()[0].usage.cpu_ms > 0)
        (zygote,) = waiting().keys() - others
        os.kill(zygote, signal.SIGSTOP)
        assert (await running).code == PROCESS_STUCK
        os.kill(zygote, signal.SIGCONT)
        await sandbox.run(GuestJob(NOTHING, b"", limits))


@pytest.mark.parametrize("words", [(), ("alone",)], ids=["namespaces", "without namespaces"])
def test_a_killed_agent_takes_its_jobs_with_it(
    words: tuple[str, ...],
    hostile_zygote: Callable[..., tuple[str, ...]],
    descendants: Find,
    tmp_path: Path,
) -> None:
    module = tmp_path / "forever.wasm"
    module.write_bytes(RINGED_FOREVER)
    script = f"""
import asyncio, pathlib
from ringfence.agent.sandbox.port import GuestJob, Limits
from ringfence.agent.sandbox.process import open_sandbox
job = GuestJob(pathlib.Path({str(module)!r}).read_bytes(), b"", Limits(65536, 65536, 60000, 1, 0))
with open_sandbox({hostile_zygote(*words)!r}) as sandbox:
    asyncio.run(sandbox.run(job))
"""
    agent = subprocess.Popen([sys.executable, "-I", "-c", script])
    give_up = time.monotonic() + 20
    # The zygote, two children that work and two that wait.
    while len(started := descendants(agent.pid)) < 5 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert len(started) >= 5
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
