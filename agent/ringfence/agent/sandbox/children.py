"""The agent's end of its zygote: starts it, orders children from it, and hears how they end.

Every child is known by its pidfd, so a kill reaches it or nobody. If the zygote ends, its children end with it; the
next job starts a new one, executed anew, which holds nothing of this process either.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from ringfence.agent.errors import WORKER_LOST, SandboxError
from ringfence.agent.sandbox import orders
from ringfence.agent.sandbox.orders import Ended, NotStarted, Order, Ready, Started

ZYGOTE: Final = (sys.executable, "-I", "-m", "ringfence.agent.sandbox.zygote")
READY_S: Final = 30.0
_GONE = -int(signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a process ended: its exit status, negative for a signal, and the processor time it used.

    `lost` says why it never ran, or that who knows how it ended has gone; "" for an end that was seen.
    """

    status: int
    cpu_ms: float
    lost: str = ""


class Child:
    """A forked process. `ended` is set once it has been reaped."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.ended: asyncio.Future[ChildEnd] = loop.create_future()
        self.pid = 0
        self._pidfd = -1
        self._doomed = False

    def started(self, pidfd: int) -> None:
        """Its zygote has forked it."""
        self._pidfd = pidfd
        if self._doomed:
            self.kill()
        self.pid = _pid_of(pidfd)

    def kill(self) -> None:
        """SIGKILL, as soon as it runs, unless it has ended."""
        self._doomed = True
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def end(self, end: ChildEnd) -> None:
        """It was reaped."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if not self.ended.done():
            self.ended.set_result(end)


class Children:
    """Forks children from one zygote at a time. Made before the event loop runs; used from one loop."""

    def __init__(self, command: Sequence[str] = ZYGOTE) -> None:
        self._command = tuple(command)
        self._next = 0
        self._running: dict[int, Child] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[None] | None = None
        self._process, self._control, self._warm = _start(self._command)

    @property
    def zygote_pid(self) -> int:
        """The process id of the zygote that was executed."""
        return self._process.pid

    @property
    def isolated(self) -> bool:
        """Whether its children have namespaces of their own."""
        return self._warm.isolated

    @property
    def own_bytes(self) -> int:
        """The memory that each child begins with."""
        return self._warm.own_bytes

    async def fork(self, order: Callable[[int], Order], descriptors: Sequence[int]) -> Child:
        """A child for the order that `order` makes of its number. Raises `SandboxError` where there can be none."""
        await self._ready()
        try:
            return self._send(order, descriptors)
        except ConnectionError:
            # The zygote has ended, and this is how it becomes known.
            self._hear()
        await self._ready()
        return self._send(order, descriptors)

    def _send(self, order: Callable[[int], Order], descriptors: Sequence[int]) -> Child:
        self._next += 1
        child = Child(self._next, asyncio.get_running_loop())
        try:
            socket.send_fds(self._control, [orders.encode(order(child.number))], list(descriptors))
        except ConnectionError:
            raise
        except OSError as error:
            raise _unavailable(os.strerror(error.errno or 0)) from error
        self._running[child.number] = child
        return child

    def close(self) -> None:
        """Ends the zygote, and with it every child."""
        self._forget_loop()
        self._control.close()
        self._process.wait()
        self._abandon()

    async def _ready(self) -> None:
        """Listens in the running loop, to a new zygote where the last one has ended."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._forget_loop()
            self._loop = loop
            if self._control.fileno() >= 0:
                self._listen(loop)
        if self._control.fileno() < 0:
            if self._starting is None or self._starting.done():
                self._starting = loop.create_task(self._start_again(loop))
            await asyncio.shield(self._starting)

    async def _start_again(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not in another thread: the kernel kills a process that dies with its parent when the thread that made it ends.
        process, control = _execute(self._command)
        try:
            control.setblocking(False)
            packet = await asyncio.wait_for(loop.sock_recv(control, orders.MAX_PACKET), READY_S)
            warm = _as_good_as(self._warm, _greeting(packet))
        except OSError as error:
            _discard(process, control)
            raise _unready() from error
        except BaseException:
            _discard(process, control)
            raise
        self._process, self._control, self._warm = process, control, warm
        self._listen(loop)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        self._control.setblocking(False)
        loop.add_reader(self._control, self._hear)

    def _forget_loop(self) -> None:
        if self._loop is not None and not self._loop.is_closed() and self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
        self._loop = None

    def _hear(self) -> None:
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._control, orders.MAX_PACKET, 1)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self._lost()
                return
            answer = orders.decode_answer(packet)
            match answer:
                case Started(number) if descriptors:
                    self._running[number].started(descriptors[0])
                case Started():
                    # This process had no descriptor left for the child's pidfd, and could never kill that child.
                    self._lost()
                    return
                case Ended(number, status, cpu_ms):
                    self._running.pop(number).end(ChildEnd(status, cpu_ms))
                case NotStarted(number, error):
                    self._running.pop(number).end(
                        ChildEnd(_GONE, 0.0, f"it could not be started ({os.strerror(error)})")
                    )
                case Ready():
                    pass

    def _lost(self) -> None:
        """The zygote has ended, and the kernel has killed its children."""
        if self._loop is not None:
            self._loop.remove_reader(self._control)
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._abandon()

    def _abandon(self) -> None:
        for child in self._running.values():
            child.kill()
            child.end(ChildEnd(_GONE, 0.0, "its zygote ended"))
        self._running.clear()


def _start(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket, Ready]:
    """A zygote that is ready: its process, the agent's end of its socket, and what it says of itself."""
    process, control = _execute(command)
    control.settimeout(READY_S)
    try:
        return process, control, _greeting(control.recv(orders.MAX_PACKET))
    except OSError as error:
        _discard(process, control)
        raise _unready() from error
    except SandboxError:
        _discard(process, control)
        raise


def _execute(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A zygote that will be ready, and the agent's end of its socket."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={},
                cwd="/",
                close_fds=True,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            mine.close()
            raise _unavailable(os.strerror(error.errno or 0)) from error
    return process, mine


def _greeting(packet: bytes) -> Ready:
    try:
        answer = orders.decode_answer(packet)
    except msgspec.MsgspecError as error:
        raise _unready() from error
    if not isinstance(answer, Ready):
        raise _unready()
    return answer


def _as_good_as(last: Ready, new: Ready) -> Ready:
    """The new zygote's word; raises where what jobs were admitted on no longer holds."""
    if last.isolated and not new.isolated:
        raise _unavailable("the new zygote has no namespaces, and the last one had")
    return new


def _discard(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.kill()
    process.wait()


def _pid_of(pidfd: int) -> int:
    """The process id behind a pidfd as this process sees it (proc_pid_fdinfo(5)); 0 or less when nobody can tell.

    Only the monitor wants it: what kills a child is the pidfd.
    """
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("Pid:")), 0)
    except OSError:
        return 0


def _unready() -> SandboxError:
    return _unavailable("its zygote did not get ready")


def _unavailable(why: str) -> SandboxError:
    return SandboxError(
        WORKER_LOST,
        f"The job's processes cannot be started: {why}.",
        hint="Look for a limit on processes, open files or memory of the agent, and run `ringfence doctor`.",
    )
