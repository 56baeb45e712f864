"""What one commit writes: records that become durable, or fail, together, and the lines that they become."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from binascii import hexlify
from dataclasses import dataclass
from typing import TypeAlias

from ringfence.audit.errors import TIMEOUT, UNAVAILABLE, AuditError
from ringfence.audit.kinds import Operator, Record
from ringfence.audit.merkle import Frontier
from ringfence.audit.records import LINE, check_data, check_many, encode_data

MAX_RECORDS = 16_384
MAX_BYTES = 8 * 1024 * 1024

# Few enough that what is read back for the check stays in the processor's cache.
_CHECKED_AT_ONCE = 256
_sha256 = hashlib.sha256


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the durable chain: the last leaf hash (hexadecimal), the tree, and where in which segment it ends."""

    chain: bytes
    tree: Frontier
    segment: int
    size: int

    @property
    def seq(self) -> int:
        """Number of the last record, 0 without one."""
        return self.tree.size


class Batch:
    """Records that one commit writes; filled under the log's lock, settled once by its writer."""

    def __init__(self) -> None:
        self.items: list[tuple[int, Record, bytes]] = []
        self.size = 0
        self.refused: dict[int, AuditError] = {}
        self._failure = ""
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._waiters: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}

    @property
    def full(self) -> bool:
        return len(self.items) >= MAX_RECORDS or self.size >= MAX_BYTES

    def settle(self, failure: str = "") -> None:
        """Tells everyone who waits that the batch is durable, or why it is not. Only the first call counts."""
        with self._lock:
            if self._settled.is_set():
                return
            self._failure = failure
            self._settled.set()
            waiters, self._waiters = self._waiters, {}
            self.items = []
        for loop, futures in waiters.items():
            # A loop that was closed meanwhile has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_wake, futures)

    def wait(self, index: int, timeout_s: float) -> None:
        if not self._settled.wait(timeout_s):
            raise _late(timeout_s)
        self._check(index)

    async def durable(self, index: int, timeout_s: float) -> None:
        future = self._subscribe(asyncio.get_running_loop())
        if future is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await future
            except TimeoutError as error:
                raise _late(timeout_s) from error
        self._check(index)

    def _subscribe(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        with self._lock:
            if self._settled.is_set():
                return None
            future = loop.create_future()
            self._waiters.setdefault(loop, []).append(future)
            return future

    def _check(self, index: int) -> None:
        if self._failure:
            raise unavailable(self._failure)
        refused = self.refused.get(index)
        if refused is not None:
            raise refused


Ticket: TypeAlias = tuple[Batch, int]
"""Stands for a record that was appended and is not yet known to be durable: its batch, and its place in that."""


def chain(head: Head, batch: Batch) -> tuple[Head, bytes]:
    """The batch's lines after `head`, and the head behind them.

    A record that could not be read back is refused, and a record that says so stands in its place.
    """
    base = seq = head.seq
    prev = head.chain
    lines: list[bytes] = []
    leaves: list[bytes] = []
    for start in range(0, len(batch.items), _CHECKED_AT_ONCE):
        items = batch.items[start : start + _CHECKED_AT_ONCE]
        tags = check_many([item[1] for item in items], [item[2] for item in items])
        for (time_ns, record, data), tag in zip(items, tags, strict=True):
            if isinstance(tag, AuditError):
                batch.refused[len(lines)] = tag
                tag, data = _unreadable(record)
            seq += 1
            line = LINE % (seq, base, prev, time_ns, tag, data)
            leaf = _sha256(b"\0" + line).digest()
            prev = hexlify(leaf)
            lines.append(line)
            leaves.append(leaf)
    lines.append(b"")
    written = b"\n".join(lines)
    return Head(prev, head.tree.extend(leaves), head.segment, head.size + len(written)), written


def _unreadable(record: Record) -> tuple[bytes, bytes]:
    """The tag and data of what stands in a refused record's place."""
    trace = Operator(event="unreadable", component=record.kind)
    data = encode_data(trace)
    return check_data(trace, data), data


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
