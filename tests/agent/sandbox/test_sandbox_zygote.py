"""The zygote: what it and its children can know, and what becomes of jobs when any of them ends."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent.errors import DEADLINE, WORKER_LOST, SandboxError
from ringfence.agent.sandbox import orders
from ringfence.agent.sandbox.children import ZYGOTE, Children
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.orders import CompileOrder, Ended, Ready, Started
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox, open_sandbox

Command = Callable[..., tuple[str, ...]]
Find = Callable[[int], set[int]]
Waiting = Callable[[], dict[int, set[int]]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]

NOTHING = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
FOREVER = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'))
RINGED = bytes(
    wasmtime.wat2wasm("""(module (import "ringfence" "amd_gpu_sync" (func (param i32) (result i32)))
      (memory (export "memory") 1) (func (export "_start")))""")
)
ALONE = pytest.mark.parametrize("words", [(), ("alone",)], ids=["namespaces", "without namespaces"])


@pytest.fixture
def fresh() -> Iterator[ProcessSandbox]:
    """A sandbox over a zygote of its own."""
    with open_sandbox() as opened:
        yield opened


def memory_of(pid: int) -> bytes:
    """All that a process can read of its memory; raises `PermissionError` where it may not be looked at."""
    found = []
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            extent, access, *_ = line.split()
            first, last = (int(address, 16) for address in extent.split("-"))
            if access[0] == "r" and "[v" not in line:
                memory.seek(first)
                found.append(memory.read(last - first))
    return b"".join(found)


def files_of(pid: int) -> list[str]:
    """What the descriptors of a process are of."""
    folder = Path(f"/proc/{pid}/fd")
    return sorted(os.readlink(entry).split(" ")[0].split("[")[0].split(":[")[0] for entry in folder.iterdir())


@ALONE
async def test_no_process_of_a_job_knows_what_the_agent_knows(
    words: tuple[str, ...],
    hostile_zygote: Command,
    limits: Limits,
    descendants: Find,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key is planted in the agent's memory, environment and files; the worker's own input must be found instead."""
    key, given = os.urandom(32), b"stand still" + os.urandom(32)
    monkeypatch.setenv("RINGFENCE_SECRET", key.hex())
    with tempfile.TemporaryFile() as open_in_agent:
        open_in_agent.write(key)
        open_in_agent.flush()
        os.set_inheritable(open_in_agent.fileno(), True)
        with open_sandbox(hostile_zygote(*words)) as sandbox:
            job = asyncio.create_task(sandbox.run(GuestJob(RINGED, given, limits)))
            await until(lambda: any(stands_still(pid) for pid in descendants(os.getpid())))
            (worker,) = filter(stands_still, descendants(os.getpid()))
            dumps = [memory_of(worker)]
            assert given in dumps[0]
            for pid in descendants(os.getpid()) - {worker}:
                # Root may look at the zygote and at those that wait, too.
                with suppress(OSError):
                    dumps.append(memory_of(pid))
                    assert not holds(pid, open_in_agent.fileno())
            for dump in dumps:
                assert key not in dump
                assert key.hex().encode() not in dump
            assert files_of(worker) == [
                "/dev/null",
                "/dev/null",
                *(f"/memfd:ringfence-{name}" for name in ("compiled", "diagnostics", "input", "progress")),
                *(f"/memfd:ringfence-{name}" for name in ("reply", "request", "result")),
                "socket:",
            ]
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job


def holds(pid: int, descriptor: int) -> bool:
    """Whether a process has the file of this one's descriptor open."""
    mine = os.fstat(descriptor)
    return any(os.path.samestat(mine, entry.stat()) for entry in Path(f"/proc/{pid}/fd").iterdir())


def stands_still(pid: int) -> bool:
    """Whether it is a worker that has read its job and waits to be looked at."""
    try:
        files = files_of(pid)
    except OSError:
        return False
    return "/memfd:ringfence-input" in files and files.count("socket:") == 1 and state(pid) == "S"


@ALONE
async def test_what_a_worker_sees(words: tuple[str, ...], hostile_zygote: Command, limits: Limits) -> None:
    with closing(Children(hostile_zygote(*words))) as children:
        assert not (words and children.isolated)
        outcome = await ProcessSandbox(children).run(GuestJob(NOTHING, b"look around", limits))
        seen = json.loads(outcome.output)
        if children.isolated:
            assert seen["interfaces"] == ["lo"]
            assert seen["connected"] in (errno.ENETUNREACH, errno.EACCES)
            assert (seen["parent"], seen["pid"] < 100) == (1, True)
        else:
            assert seen["parent"] == children.zygote_pid
        assert seen["environment"].keys() <= {"LC_CTYPE", "OPENBLAS_NUM_THREADS"}
        assert seen["folder"] == "/"


@ALONE
async def test_jobs_run_with_and_without_namespaces(
    words: tuple[str, ...], hostile_zygote: Command, neighbour: GuestJob
) -> None:
    with open_sandbox(hostile_zygote(*words)) as sandbox:
        assert (await sandbox.run(neighbour)).output == b"hello!!!1"


@ALONE
async def test_a_zygote_that_is_killed_ends_its_jobs_and_the_next_one_gets_another(
    words: tuple[str, ...],
    hostile_zygote: Command,
    limits: Limits,
    neighbour: GuestJob,
    descendants: Find,
    children: Find,
    until: Until,
) -> None:
    before = descendants(os.getpid())
    with open_sandbox(hostile_zygote(*words)) as sandbox:
        (zygote,) = children(os.getpid()) - before
        jobs = [asyncio.create_task(sandbox.run(GuestJob(FOREVER, b"", limits))) for _ in range(3)]
        # All three are seen at work: one that is only being compiled would begin in the next zygote.
        await until(lambda: sum(kernel.usage.cpu_ms > 0 for kernel in sandbox.active_kernels()) == 3)
        old = descendants(zygote)
        # The one that forks: where there are namespaces, the first process in them.
        os.kill(min(children(zygote)) if not words else zygote, signal.SIGKILL)
        ends = await asyncio.gather(*jobs, return_exceptions=True)
        assert [end.code for end in ends if isinstance(end, GuestError)] == [WORKER_LOST] * 3
        assert all("was lost: its zygote ended." in str(end) for end in ends)
        await until(lambda: not old & descendants(os.getpid()))
        assert (await sandbox.run(neighbour)).output == b"hello!!!1"
        assert len(children(os.getpid()) - before) == 1
    await until(lambda: descendants(os.getpid()) <= before)


async def kill_all(pids: set[int], until: Until) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await until(lambda: all(state(pid) in "ZX" for pid in pids))


async def test_a_zygote_that_was_killed_while_idle_is_not_noticed_by_the_next_job(
    fresh: ProcessSandbox, neighbour: GuestJob, descendants: Find, until: Until
) -> None:
    await fresh.run(neighbour)
    await kill_all(descendants(os.getpid()), until)
    assert (await fresh.run(neighbour)).output == b"hello!!!1"


def test_a_new_zygote_outlives_the_loop_that_started_it(neighbour: GuestJob, descendants: Find, until: Until) -> None:
    """The kernel ties a process to the thread that started it, and a loop's threads end with the loop."""
    with open_sandbox() as sandbox:
        asyncio.run(kill_all(descendants(os.getpid()), until))
        for _ in range(3):
            assert asyncio.run(sandbox.run(neighbour)).output == b"hello!!!1"


async def test_a_child_that_was_killed_while_it_waited_costs_no_job(
    fresh: ProcessSandbox, neighbour: GuestJob, descendants: Find, waiting: Waiting, until: Until
) -> None:
    await fresh.run(neighbour)
    for _ in range(3):
        await until(lambda: all(len(pids) == 2 for pids in waiting().values()))
        (idle,) = waiting().values()
        await kill_all(idle, until)
        assert (await fresh.run(neighbour)).output == b"hello!!!1"
        assert not idle & descendants(os.getpid())


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


async def test_a_zygote_that_cannot_fork_refuses_each_job(hostile_zygote: Command, limits: Limits) -> None:
    with open_sandbox(hostile_zygote("barren")) as sandbox:
        for _ in range(3):
            with pytest.raises(SandboxError) as caught:
                await sandbox.run(GuestJob(NOTHING, b"", limits))
            assert caught.value.code == WORKER_LOST


async def test_a_zygote_without_descriptors_left_refuses_jobs_and_recovers(
    hostile_zygote: Command, limits: Limits, neighbour: GuestJob, waiting: Waiting, until: Until
) -> None:
    """The kernel also counts the descriptors that are under way, so that a burst of jobs has none either."""
    job = GuestJob(FOREVER, b"", replace(limits, deadline_ms=1000))
    with open_sandbox(hostile_zygote("cramped")) as sandbox:
        await sandbox.run(neighbour)
        for pause in (0.02, 0.0):
            running = []
            for _ in range(20):
                running.append(asyncio.create_task(sandbox.run(job)))
                await asyncio.sleep(pause)
            ends = await asyncio.gather(*running, return_exceptions=True)
            assert {end.code for end in ends if isinstance(end, SandboxError)} == {DEADLINE, WORKER_LOST}
            for _ in range(3):
                assert (await sandbox.run(neighbour)).output == b"hello!!!1"
            await until(lambda: all(len(pids) == 2 for pids in waiting().values()))


class Wire:
    """A zygote and the agent's end of its socket, without an agent."""

    def __init__(self) -> None:
        self.end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self.process = subprocess.Popen(
                [*ZYGOTE, str(other.fileno())], pass_fds=(other.fileno(),), env={}, stderr=subprocess.PIPE
            )
        self.end.settimeout(20)
        assert isinstance(self.hear(), Ready)

    def hear(self) -> orders.Answer:
        packet, descriptors, _, _ = socket.recv_fds(self.end, orders.MAX_PACKET, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        return orders.decode_answer(packet)

    def close(self) -> str:
        self.end.close()
        _, words = self.process.communicate(timeout=20)
        return str(words.decode())


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


@pytest.mark.parametrize(
    "packet", [b"garbage", b"\x00", b"\x81\xa4type\xa5guest", orders.encode(Ready(True, 0)), b"x" * orders.MAX_PACKET]
)
def test_what_is_no_order_ends_the_zygote(wire: Wire, packet: bytes) -> None:
    wire.end.send(packet)
    assert wire.end.recv(64) == b""
    assert "msgspec" in wire.close()
    assert wire.process.returncode != 0


def test_an_order_without_its_files_ends_its_child_and_no_other(wire: Wire) -> None:
    for number in (7, 8):
        wire.end.send(orders.encode(CompileOrder(number, Level.HIGH, 1 << 20, 0, 64)))
        assert wire.hear() == Started(number)
        ended = wire.hear()
        assert isinstance(ended, Ended)
        assert (ended.child, ended.status) == (number, 1)
    wire.close()
    assert wire.process.returncode == 0


@pytest.mark.parametrize("command", [("/nowhere",), ("/bin/true",), ("/bin/sh", "-c", "echo >&$1", "sh")])
def test_a_program_that_is_no_zygote(command: tuple[str, ...]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SandboxError) as caught:
        Children(command)
    assert caught.value.code == WORKER_LOST
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_agent_loads_neither_the_runtime_nor_what_reads_modules() -> None:
    code = "import ringfence.agent.daemon, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "ringfence.agent.sandbox.modules" in loaded
    forbidden = ("wasmtime", "numpy", "ringfence.agent.sandbox.validation", "ringfence.agent.sandbox.wasm")
    assert [name for name in loaded if name.startswith(forbidden)] == []
