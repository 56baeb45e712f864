"""Keeps the front workers: starts each with one channel and the listener, serves it, and starts it again when it ends.

A front dies with the decision process. The other way round it is only one front: its work is cancelled, the others go
on, and it is started again, ever later where it ends soon after each start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from subprocess import DEVNULL
from typing import Final

from ringfence.plugin.builtin.app import HELLO_LIMIT, Capacity
from ringfence.plugin.builtin.connections import HEADER_BYTES
from ringfence.plugin.builtin.front.errors import FRONT_NOT_STARTED, FrontError
from ringfence.plugin.builtin.front.frames import Bounds, frames
from ringfence.plugin.builtin.front.messages import Setup, encode
from ringfence.plugin.builtin.front.remote import READ_BYTES
from ringfence.plugin.builtin.front.service import Service, Shared
from ringfence.plugin.builtin.server import GRACE_S

READY_BYTES: Final = len(b"".join(frames(0, b"")))
START_S: Final = 30.0
"""How long a front may take to accept connections."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 30.0
"""A front that has run for so long is started again without the pause of those before."""

ANSWER_SLACK_S: Final = 5.0
"""How much longer a front waits for a decision than the decision process waits for the agent."""

COMMAND: Final = (sys.executable, "-I", "-m", "ringfence.plugin.builtin.front")


@dataclass(frozen=True, slots=True)
class Plan:
    """How many fronts there are, and what all of them may hold together; each gets its share."""

    workers: int
    capacity: Capacity
    connections: int
    header_timeout_s: float
    job_timeout_s: float

    def setup(self, documents: Mapping[str, bytes]) -> Setup:
        """What each front is told."""
        connections = _share(self.connections, self.workers)
        bodies_bytes = max(_share(self.capacity.bodies_bytes, self.workers), self.capacity.body_bytes)
        # A connection has one request under way; what its caller cancels may still be ending.
        calls = 2 * connections
        return Setup(
            connections=connections,
            header_timeout_s=self.header_timeout_s,
            jobs=self.capacity.jobs,
            openings=self.capacity.openings,
            body_bytes=self.capacity.body_bytes,
            bodies_bytes=bodies_bytes,
            body_timeout_s=self.capacity.body_timeout_s,
            answer_timeout_s=self.job_timeout_s + ANSWER_SLACK_S,
            calls=calls,
            calls_bytes=bodies_bytes + self.capacity.openings * HELLO_LIMIT + calls * HEADER_BYTES,
            documents=dict(documents),
        )


class Fronts:
    """The front workers of one gateway on one listener, asking `gate`."""

    def __init__(
        self,
        plan: Plan,
        listener: socket.socket,
        shared: Shared,
        documents: Mapping[str, bytes],
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`documents` are what anybody may GET, by path; `command` starts a front."""
        self._plan = plan
        self._command = command
        self._listener = listener
        self._shared = shared
        self._setup = plan.setup(documents)
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Every front accepts connections inside; on leaving, requests under way have `GRACE_S` to end.

        Raises `FrontError` front.not_started where one does not start at first. May be used once.
        """
        loop = asyncio.get_running_loop()
        ready: list[asyncio.Future[None]] = [loop.create_future() for _ in range(self._plan.workers)]
        keeping = [asyncio.create_task(self._keep(number, first)) for number, first in enumerate(ready, 1)]
        try:
            await asyncio.gather(*ready)
            yield
        finally:
            self._stopping.set()
            await asyncio.gather(*keeping)

    async def _keep(self, number: int, first: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_S
        while True:
            began = loop.time()
            how = await self._one(first)
            if not first.done():
                first.set_exception(_not_started(number, how))
            if self._stopping.is_set():
                return
            if loop.time() - began >= STEADY_S:
                pause = FIRST_PAUSE_S
            self._shared.tell(f"the front {number} {how}; it is started again in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _one(self, first: asyncio.Future[None]) -> str:
        """Runs one front until it ends, and says how it did."""
        try:
            process, reader, writer = await self._start()
        except OSError as error:
            return f"could not be started ({error.strerror})"
        serving = asyncio.create_task(self._serve(reader, writer, first))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                process.terminate()
                await asyncio.wait({serving}, timeout=GRACE_S + 1)
        finally:
            stopping.cancel()
            serving.cancel()
            await asyncio.wait({serving})
            writer.close()
            how = await _ended(process)
        if serving.cancelled():
            return how
        return serving.result() or how

    async def _start(self) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader, asyncio.StreamWriter]:
        mine, theirs = socket.socketpair()
        with theirs:
            numbers = (theirs.fileno(), self._listener.fileno())
            reader, writer = await asyncio.open_unix_connection(sock=mine, limit=READ_BYTES)
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    *("--channel", str(numbers[0]), "--listener", str(numbers[1]), "--parent", str(os.getpid())),
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    env={},
                    cwd="/",
                    pass_fds=numbers,
                    # A Ctrl-C is for the decision process, which stops its fronts.
                    start_new_session=True,
                )
            except BaseException:
                writer.close()
                raise
        return process, reader, writer

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: asyncio.Future[None]
    ) -> str:
        """Serves a front until it is gone; says what was wrong with it where this side knows."""
        try:
            async with asyncio.timeout(START_S):
                for piece in frames(0, encode(self._setup)):
                    writer.write(piece)
                await reader.readexactly(READY_BYTES)
        except TimeoutError:
            return f"did not accept connections within {START_S:g} s"
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""
        if not first.done():
            first.set_result(None)
        setup = self._setup
        bounds = Bounds(setup.calls, setup.calls_bytes, max(setup.body_bytes, HELLO_LIMIT))
        try:
            await Service(self._shared, bounds, reader, writer).run()
        except FrontError as error:
            return f"was given up: {error.message}"
        return ""


async def _ended(process: asyncio.subprocess.Process) -> str:
    """Sees that the process is gone; says how it ended. One that has lost its channel ends at once by itself."""
    try:
        status = await asyncio.wait_for(process.wait(), 1.0)
    except TimeoutError:
        process.kill()
        status = await process.wait()
    return f"ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _share(whole: int, workers: int) -> int:
    return -(-whole // workers)


def _not_started(number: int, how: str) -> FrontError:
    return FrontError(
        FRONT_NOT_STARTED,
        f"The front {number} {how} before it accepted connections.",
        field="limits.workers",
        hint="Look at what it wrote to standard error, and at the limits on processes and memory.",
    )
