"""What callers wait for: batches of records that become durable, or fail, together."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field

from ringfence.audit.errors import TIMEOUT, UNAVAILABLE, AuditError

MAX_RECORDS = 16_384
MAX_BYTES = 8 * 1024 * 1024


class Batch:
    """Records that one commit writes; filled under the log's lock, settled once by its writer."""

    def __init__(self) -> None:
        self.bodies: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._failure = ""
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._waiters: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}

    @property
    def full(self) -> bool:
        return len(self.bodies) >= MAX_RECORDS or self._bytes >= MAX_BYTES

    def add(self, time_ns: int, body: bytes) -> None:
        self.bodies.append((time_ns, body))
        self._bytes += len(body)

    def settle(self, failure: str = "") -> None:
        """Tells everyone who waits that the batch is durable, or why it is not. Only the first call counts."""
        with self._lock:
            if self._settled.is_set():
                return
            self._failure = failure
            self._settled.set()
            waiters, self._waiters = self._waiters, {}
        for loop, futures in waiters.items():
            # A loop that was closed meanwhile has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_wake, futures)

    def wait(self, timeout_s: float) -> None:
        if not self._settled.wait(timeout_s):
            raise _late(timeout_s)
        self._check()

    async def durable(self, timeout_s: float) -> None:
        future = self._subscribe(asyncio.get_running_loop())
        if future is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await future
            except TimeoutError as error:
                raise _late(timeout_s) from error
        self._check()

    def _subscribe(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        with self._lock:
            if self._settled.is_set():
                return None
            future = loop.create_future()
            self._waiters.setdefault(loop, []).append(future)
            return future

    def _check(self) -> None:
        if self._failure:
            raise unavailable(self._failure)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Stands for a record that was appended and is not yet known to be durable."""

    batch: Batch = field(repr=False)


def unavailable(reason: str) -> AuditError:
    """The error that everyone meets whose record did not become durable."""
    return AuditError(
        UNAVAILABLE,
        f"The audit log cannot keep records: {reason}.",
        hint="Deny what depends on the record; look at the disk under the log.",
    )


def _late(timeout_s: float) -> AuditError:
    return AuditError(
        TIMEOUT,
        f"The record was not durable within {timeout_s:g} s.",
        hint="Deny what depends on the record; look at the disk under the log.",
    )


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
