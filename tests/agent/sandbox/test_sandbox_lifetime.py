"""A job leaves no process, descriptor or file behind, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent.errors import DEADLINE, PROCESS_STUCK, WORKER_LOST, SandboxError
from ringfence.agent.sandbox.children import Child
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits
from ringfence.agent.sandbox.process import WORKER_COMMAND, ProcessSandbox

Children = Callable[[int], set[int]]
FOREVER = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'))
NOTHING = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _only(mine: set[int], children: Children) -> None:
    """Wait until this process has no children but `mine`."""
    for _ in range(500):
        if children(os.getpid()) == mine:
            return
        await asyncio.sleep(0.01)
    pytest.fail("a process was left behind")


async def _failure(sandbox: ProcessSandbox, job: GuestJob) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        await sandbox.run(job)
    return caught.value


async def test_many_jobs_in_a_row_leave_nothing(
    limits: Limits, idle_broker: tuple[str, ...], hostile: Callable[[str, str], tuple[str, ...]], children: Children
) -> None:
    sandbox = ProcessSandbox(worker=hostile("run", "nothing"), broker=idle_broker)
    before, mine = _descriptors(), children(os.getpid())
    for _ in range(30):
        await sandbox.run(GuestJob(b"", b"", limits))
    assert _descriptors() == before
    assert children(os.getpid()) == mine


async def test_jobs_run_side_by_side(limits: Limits, idle_broker: tuple[str, ...], children: Children) -> None:
    sandbox = ProcessSandbox(broker=idle_broker)
    before, mine = _descriptors(), children(os.getpid())
    late = replace(limits, deadline_ms=1500)
    jobs = [GuestJob(NOTHING, b"", limits), GuestJob(FOREVER, b"", late), GuestJob(b"garbage", b"", limits)]
    ends = await asyncio.gather(*map(sandbox.run, jobs), return_exceptions=True)
    assert [isinstance(end, SandboxError) for end in ends] == [False, True, True]
    assert _descriptors() == before
    assert children(os.getpid()) == mine


@pytest.mark.parametrize("after", [0.0, 0.05, 0.6])
async def test_cancelling_kills_the_job(limits: Limits, after: float, children: Children) -> None:
    before, mine = _descriptors(), children(os.getpid())
    task = asyncio.create_task(ProcessSandbox().run(GuestJob(FOREVER, b"", limits)))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children(os.getpid()) == mine
    assert _descriptors() == before


async def test_a_job_cancelled_twice_is_still_reaped(limits: Limits, children: Children) -> None:
    before, mine = _descriptors(), children(os.getpid())
    task = asyncio.create_task(ProcessSandbox().run(GuestJob(FOREVER, b"", limits)))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _only(mine, children)
    assert _descriptors() == before


async def test_a_program_that_does_not_exist(limits: Limits, idle_broker: tuple[str, ...], children: Children) -> None:
    before, mine = _descriptors(), children(os.getpid())
    error = await _failure(ProcessSandbox(worker=("/nowhere",), broker=idle_broker), GuestJob(NOTHING, b"", limits))
    assert error.code == WORKER_LOST
    await _only(mine, children)
    assert _descriptors() == before


async def test_an_agent_without_descriptors_left_leaks_none(
    limits: Limits, idle_broker: tuple[str, ...], hostile: Callable[[str, str], tuple[str, ...]], children: Children
) -> None:
    sandbox = ProcessSandbox(worker=hostile("run", "nothing"), broker=idle_broker)
    before, mine = _descriptors(), children(os.getpid())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    codes = []
    for spare in range(20):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, hard))
        try:
            await sandbox.run(GuestJob(b"", b"", limits))
        except SandboxError as error:
            codes.append(error.code)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await _only(mine, children)
        assert _descriptors() == before
    assert set(codes) == {WORKER_LOST}
    assert len(codes) < 20


async def test_a_worker_that_breaks_says_why(limits: Limits, idle_broker: tuple[str, ...]) -> None:
    worker = (sys.executable, "-I", "-S", "-c", "raise SystemExit('no runtime here')")
    error = await _failure(ProcessSandbox(worker=worker, broker=idle_broker), GuestJob(NOTHING, b"", limits))
    assert error.code == WORKER_LOST
    assert "with status 1" in error.message
    assert "(no runtime here)" in error.message


@pytest.mark.parametrize(
    "content", [b"\xff" * 4096, b"\0" * 12 + b"\2\0\0\0{}", b"\0" * 12 + b"\x13\0\0\0" + b'{"code":"made.up!"}']
)
async def test_a_worker_that_leaves_nonsense(limits: Limits, idle_broker: tuple[str, ...], content: bytes) -> None:
    script = f"import os, sys; os.pwrite(int(sys.argv[2]), {content!r}, 0); os._exit(int({content!r}[12] == 2))"
    worker = (sys.executable, "-I", "-S", "-c", script)
    error = await _failure(ProcessSandbox(worker=worker, broker=idle_broker), GuestJob(NOTHING, b"", limits))
    assert error.code == WORKER_LOST


async def test_a_worker_cannot_claim_more_output_than_its_file_holds(
    limits: Limits, idle_broker: tuple[str, ...]
) -> None:
    report = b'{"output_bytes":99999}'
    content = b"\0" * 12 + len(report).to_bytes(4, "little") + report
    script = f"import os, sys; os.pwrite(int(sys.argv[2]), {content!r}, 0); os._exit(0)"
    worker = (sys.executable, "-I", "-S", "-c", script)
    error = await _failure(ProcessSandbox(worker=worker, broker=idle_broker), GuestJob(NOTHING, b"", limits))
    assert error.code.name == "sandbox.output_limit"


@pytest.mark.parametrize("code", ["", "sandbox.trap"])
async def test_no_peak_beyond_the_limit_is_believed(limits: Limits, idle_broker: tuple[str, ...], code: str) -> None:
    report = b'{"code":"' + code.encode() + b'"}'
    content = b"\xff" * 8 + b"\2\0\0\0" + len(report).to_bytes(4, "little") + report
    script = f"import os, sys; os.pwrite(int(sys.argv[2]), {content!r}, 0); os._exit(0)"
    sandbox = ProcessSandbox(worker=(sys.executable, "-I", "-S", "-c", script), broker=idle_broker)
    try:
        usage = (await sandbox.run(GuestJob(NOTHING, b"", limits))).usage
    except GuestError as error:
        usage = error.usage
    assert usage.peak_memory_bytes == limits.memory_bytes


COUNTERS = {"commands": 9, "launches": 4, "gates": 3, "measurements": 2, "checkpoints": 0, "peak_gpu_bytes": 1}


def _claiming(**counters: int) -> ProcessSandbox:
    """A sandbox whose broker claims these counters."""
    account = json.dumps(COUNTERS | counters).encode()
    script = f"import os, sys; os.read(int(sys.argv[2]), 1); os.write(int(sys.argv[8]), {account!r})"
    return ProcessSandbox(broker=(sys.executable, "-I", "-S", "-c", script))


async def test_no_pool_beyond_the_limit_is_believed(limits: Limits) -> None:
    usage = (await _claiming(peak_gpu_bytes=2**63 - 1).run(GuestJob(NOTHING, b"", limits))).usage
    assert usage.peak_gpu_bytes == limits.gpu_memory_bytes
    assert (usage.commands, usage.launches, usage.gates, usage.measurements) == (9, 4, 3, 2)


@pytest.mark.parametrize("counters", [{"launches": 5}, {"launches": -1}, {"commands": 2**63}, {"peak_gpu_bytes": -1}])
async def test_a_broker_whose_account_cannot_be_true_is_not_believed(limits: Limits, counters: dict[str, int]) -> None:
    error = await _failure(_claiming(**counters), GuestJob(NOTHING, b"", limits))
    assert error.code == WORKER_LOST
    assert isinstance(error, GuestError)
    assert (error.usage.commands, error.usage.peak_gpu_bytes) == (0, 0)


class Unkillable(Child):
    """A process as one that sleeps in the kernel: killing it has no effect yet."""

    def kill(self) -> None:
        pass


class Stuck:
    """Starts processes of which those that run `sleep` cannot be killed until `wake`."""

    def __init__(self) -> None:
        self.sleepers: list[Unkillable] = []

    def start(self, command: Sequence[str], descriptors: Sequence[int], standard_error: int) -> Child:
        if command[0] != SLEEP[0]:
            return Child(command, descriptors, standard_error)
        self.sleepers.append(Unkillable(SLEEP, descriptors, standard_error))
        return self.sleepers[-1]

    async def wake(self) -> None:
        for sleeper in self.sleepers:
            Child.kill(sleeper)
        await asyncio.wait_for(asyncio.gather(*(sleeper.ended for sleeper in self.sleepers)), 5)


@pytest.fixture
async def stuck() -> AsyncIterator[Stuck]:
    found = Stuck()
    yield found
    await found.wake()


SLEEP = ("/bin/sleep", "600")


@pytest.mark.parametrize("which", ["worker", "broker"])
async def test_a_process_that_cannot_be_killed_does_not_hold_the_answer(
    limits: Limits, idle_broker: tuple[str, ...], children: Children, stuck: Stuck, which: str
) -> None:
    before, mine = _descriptors(), children(os.getpid())
    worker, broker = (SLEEP, idle_broker) if which == "worker" else (WORKER_COMMAND, SLEEP)
    sandbox = ProcessSandbox(worker=worker, broker=broker, start=stuck.start, kill_grace_s=0.1)
    started = time.monotonic()
    error = await _failure(sandbox, GuestJob(NOTHING, b"", replace(limits, deadline_ms=1000)))
    assert time.monotonic() - started < 4
    assert error.code == PROCESS_STUCK
    assert which in error.message
    assert isinstance(error, GuestError)
    assert error.usage.wall_ms > 0
    await stuck.wake()
    assert _descriptors() == before
    assert children(os.getpid()) == mine


async def test_cancelling_a_job_that_cannot_be_killed(limits: Limits, children: Children, stuck: Stuck) -> None:
    before, mine = _descriptors(), children(os.getpid())
    sandbox = ProcessSandbox(worker=SLEEP, broker=SLEEP, start=stuck.start, kill_grace_s=0.1)
    task = asyncio.create_task(sandbox.run(GuestJob(NOTHING, b"", limits)))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait({task}, timeout=3)
    assert task.cancelled()
    await stuck.wake()
    assert _descriptors() == before
    assert children(os.getpid()) == mine


async def test_no_answer_without_the_broker_s_account(limits: Limits) -> None:
    error = await _failure(ProcessSandbox(broker=("/bin/true",)), GuestJob(NOTHING, b"", limits))
    assert error.code == WORKER_LOST
    assert "device broker" in error.message


async def test_a_stuck_broker_is_killed(limits: Limits, children: Children) -> None:
    broker = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)")
    mine = children(os.getpid())
    job = GuestJob(FOREVER, b"", replace(limits, deadline_ms=500))
    started = time.monotonic()
    error = await _failure(ProcessSandbox(broker=broker), job)
    assert time.monotonic() - started < 6
    assert isinstance(error, GuestError)
    assert error.code == DEADLINE
    assert children(os.getpid()) == mine


def test_a_killed_agent_takes_its_jobs_with_it(children: Children, tmp_path: Path) -> None:
    module = tmp_path / "forever.wasm"
    module.write_bytes(FOREVER)
    script = f"""
import asyncio, pathlib
from ringfence.agent.sandbox.port import GuestJob, Limits
from ringfence.agent.sandbox.process import WORKER_COMMAND, ProcessSandbox
job = GuestJob(pathlib.Path({str(module)!r}).read_bytes(), b"", Limits(65536, 65536, 60000, 1, 0))
asyncio.run(ProcessSandbox().run(job))
"""
    agent = subprocess.Popen([sys.executable, "-I", "-c", script])
    give_up = time.monotonic() + 10
    while len(started := children(agent.pid)) < 2 and time.monotonic() < give_up:
        time.sleep(0.02)
    assert len(started) == 2
    time.sleep(0.5)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < give_up:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
