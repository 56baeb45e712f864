"""Fronts and a decision process around a gate, in one process or in several."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ringfence.agent.api.jobs import JobLimits
from ringfence.plugin.api import JobAnswer, StageView
from ringfence.plugin.builtin.app import Capacity
from ringfence.plugin.builtin.capacity import Slots
from ringfence.plugin.builtin.front.frames import Bounds
from ringfence.plugin.builtin.front.keeping import Fronts, Plan
from ringfence.plugin.builtin.front.remote import READ_BYTES, RemoteGate
from ringfence.plugin.builtin.front.service import Service, Shared
from ringfence.plugin.builtin.port import GateDoor
from ringfence.plugin.hosts.port import Inbound

MIB = 1024 * 1024
BOUNDS = Bounds(calls=16, total=4 * MIB, body=MIB)
CAPACITY = Capacity(jobs=8, openings=8, body_bytes=MIB, bodies_bytes=8 * MIB, body_timeout_s=2.0)
ANSWER = JobAnswer(
    output=b"output" * 100_000,
    receipt=b"receipt",
    signature=b"signature",
    decision_id="decision",
    grant_id="grant",
    limits=JobLimits(memory_bytes=1, gpu_memory_bytes=2, deadline_ms=3, output_bytes=4, qubits=5),
    trace=(StageView("parse", "allow", "", 7),),
)


@dataclass
class FakeGate:
    """A gate that notes what it is asked, waits for `hold` and raises `error`, where there are such."""

    error: Exception | None = None
    hold: asyncio.Event | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    busy: asyncio.Event = field(default_factory=asyncio.Event)

    def was_asked(self, times: int) -> bool:
        return len(self.asked) == times

    async def open_session(self, message: bytes, *, source: str) -> bytes:
        await self._work("open", (message, source))
        return b"reply to " + message

    async def screen(self, inbound: Inbound) -> None:
        await self._work("screen", inbound)

    async def submit(self, inbound: Inbound) -> JobAnswer:
        await self._work("submit", inbound)
        return ANSWER

    async def add_factors(self, inbound: Inbound) -> tuple[str, ...]:
        await self._work("factors", inbound)
        return ("session-mac", "svid")

    async def _work(self, name: str, what: Any) -> None:
        self.asked.append((name, what))
        try:
            if self.hold is not None:
                self.busy.set()
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error


@dataclass(slots=True)
class Link:
    """A front's gate, the service behind it, and both ends of what is between them."""

    remote: RemoteGate
    service: asyncio.Task[None]
    front: asyncio.StreamWriter
    desk: asyncio.StreamWriter
    told: list[str]


Join = Callable[..., Any]


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    """Joins a remote gate to a gate, within the same or other bounds; everything ends with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            gate: GateDoor, *, front: Bounds = BOUNDS, desk: Bounds = BOUNDS, timeout_s: float = 5.0, **further: Any
        ) -> Link:
            ends = socket.socketpair()
            (mine, my_writer), (theirs, their_writer) = [
                await asyncio.open_unix_connection(sock=end, limit=READ_BYTES) for end in ends
            ]
            told: list[str] = []
            shared = further.pop("shared", None) or Shared(gate, Slots(64), Slots(64), told.append)
            remote = RemoteGate(mine, my_writer, front, timeout_s=timeout_s)
            service = asyncio.create_task(Service(shared, desk, theirs, their_writer, **further).run())
            running = asyncio.create_task(remote.run())

            async def end() -> None:
                for writer in (my_writer, their_writer):
                    writer.transport.abort()
                await asyncio.gather(service, running, return_exceptions=True)

            stack.push_async_callback(end)
            return Link(remote, service, my_writer, their_writer, told)

        yield make


async def until(holds: Callable[[], object]) -> None:
    """Waits until something holds, and fails when it does not soon."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what other processes do sets no event here
            await asyncio.sleep(0.01)


def front_processes(parent: int) -> list[int]:
    """The living front workers of a process."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/{entry}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()
            line = Path(f"/proc/{entry}/cmdline").read_bytes()
            if int(status[1]) == parent and b"ringfence.plugin.builtin.front" in line:
                found.append(int(entry))
    return found


@dataclass(slots=True)
class Running:
    """Fronts at work on the socket `path`."""

    path: Path
    told: list[str]

    @property
    def fronts(self) -> list[int]:
        return front_processes(os.getpid())

    def has_told(self, times: int) -> bool:
        return len(self.told) == times

    @contextlib.contextmanager
    def only(self, front: int) -> Any:
        """Within, no other front accepts anything."""
        others = [other for other in self.fronts if other != front]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    async def ask(
        self, path: str, body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ((b"host", b"localhost"),)
    ) -> tuple[int, bytes]:
        """The status and the body of the answer to a request on a new connection; 0 where there is none."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            method = b"POST" if body else b"GET"
            lines = [method + b" " + path.encode() + b" HTTP/1.1", b"content-length: %d" % len(body)]
            lines += [name + b": " + value for name, value in headers]
            writer.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
            async with asyncio.timeout(10):
                whole = await reader.read()
        except ConnectionError:
            return 0, b""
        finally:
            writer.close()
        if not whole:
            return 0, b""
        head, _, rest = whole.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest


@pytest.fixture
def run_fronts(tmp_path: Path) -> Callable[..., Any]:
    """Runs front workers before a gate in this process."""

    @contextlib.asynccontextmanager
    async def run(gate: GateDoor, workers: int = 2, **further: Any) -> AsyncIterator[Running]:
        told: list[str] = []
        plan = Plan(workers, CAPACITY, connections=64, header_timeout_s=5.0, job_timeout_s=5.0)
        with socket.socket(socket.AF_UNIX) as listener:
            (tmp_path / "s").unlink(missing_ok=True)
            listener.bind(str(tmp_path / "s"))
            listener.listen(64)
            shared = Shared(gate, Slots(8), Slots(8), told.append)
            async with Fronts(plan, listener, shared, {"/published": b"{}"}, **further).running():
                yield Running(tmp_path / "s", told)

    return run
