"""The audit log's writer: append, wait until durable, sign afterwards.

One thread commits: it takes everything that was appended while the previous commit ran, writes it with one call and
calls `fdatasync` once. A second thread signs checkpoints over what has become durable, one at a time and always over
the newest head, so that no caller ever waits for a signature.

A failed write is undone and may succeed later, when there is space again. After a failed `fdatasync` nobody knows what
the disk holds, so the log denies until it is opened anew, which reads back and checks what is there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from ringfence.audit.checkpoint import Signer, Verify, sign_checkpoint
from ringfence.audit.commit import Batch, Ticket, unavailable
from ringfence.audit.errors import CLOSED, UNAVAILABLE, AuditError
from ringfence.audit.files import FilePort, OsFiles, read_lines
from ringfence.audit.records import MAX_LINE, Entry, Record, decode_line, encode_body, encode_line, line_hash
from ringfence.audit.recovery import RECORDS, Head, Opened, recover
from ringfence.errors import RingfenceError

PATIENCE_S = 10.0
"""How long a caller waits for room in the queue, or for durability, before it must deny."""


class AuditLog:
    """An append-only, hash-chained log with signed checkpoints. Thread-safe; one writer a folder.

    Do not fork a process while it has a log open: the child would keep the folder's lock.
    """

    def __init__(
        self, folder: Path, opened: Opened, signer: Signer, clock_ns: Callable[[], int], files: FilePort
    ) -> None:
        self._folder = folder
        self._opened = opened
        self._signer = signer
        self._clock_ns = clock_ns
        self._files = files

        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._pending = Batch()
        self._head = opened.head
        self._covered = self._attempted = opened.covered
        self._checkpoints_size = opened.checkpoints_size
        self._broken = ""
        self._closing = self._finishing = self._closed = False

        self._writer = threading.Thread(target=self._guarded, args=(self._write,), name="audit-write", daemon=True)
        self._scribe = threading.Thread(target=self._guarded, args=(self._sign,), name="audit-sign", daemon=True)
        self._writer.start()
        self._scribe.start()

    @classmethod
    def open(
        cls,
        folder: Path,
        signer: Signer,
        *,
        clock_ns: Callable[[], int],
        verify: Verify,
        files: FilePort | None = None,
    ) -> AuditLog:
        """Opens the log in `folder`, creating it where there is none, and recovers it after a crash.

        `clock_ns` gives nanoseconds since the Unix epoch. Raises AuditError: audit.locked (a second writer),
        audit.wrong_key, audit.corrupt (naming the first bad record), audit.forged_checkpoint, audit.unavailable.
        """
        port = files or OsFiles()
        return cls(folder, recover(folder, signer, verify, port), signer, clock_ns, port)

    def append(self, record: Record, *, timeout_s: float = PATIENCE_S) -> Ticket:
        """Queues a record; it is not durable before `wait` or `durable` has returned for the ticket.

        A full queue slows the caller down, by `timeout_s` at most. Raises AuditError: audit.bad_record,
        audit.unavailable, audit.closed.
        """
        body = encode_body(record)
        with self._lock:
            if self._pending.full:
                self._room.wait_for(lambda: not self._pending.full or self._closing or self._broken, timeout_s)
            if self._broken:
                raise unavailable(self._broken)
            if self._closing:
                raise AuditError(CLOSED, "The audit log was closed.", hint="Deny what depends on the record.")
            if self._pending.full:
                raise unavailable(f"its queue was full for {timeout_s:g} s")
            batch = self._pending
            batch.add(self._clock_ns(), body)
            self._work.notify()
        return Ticket(batch)

    def wait(self, ticket: Ticket, timeout_s: float = PATIENCE_S) -> None:
        """Blocks until the record is durable. Raises AuditError: audit.unavailable, audit.timeout."""
        ticket.batch.wait(timeout_s)

    async def durable(self, ticket: Ticket, timeout_s: float = PATIENCE_S) -> None:
        """Awaits until the record is durable, without a thread. Raises AuditError: audit.unavailable, audit.timeout."""
        await ticket.batch.durable(timeout_s)

    def records(self, since_ns: int = 0) -> Iterator[Entry]:
        """The durable records with a time of `since_ns` or later, oldest first.

        What becomes durable after the first step is left out. Raises AuditError: audit.unavailable, audit.corrupt.
        """
        try:
            for line in read_lines(self._folder / RECORDS, MAX_LINE, until=self._head.size):
                entry = decode_line(line)
                if entry.time_ns >= since_ns:
                    yield entry
        except OSError as error:
            raise unavailable(f"its records cannot be read ({error.strerror})") from error

    def close(self) -> None:
        """Makes what was appended durable, signs a last checkpoint and lets go of the folder. May be called twice.

        Raises AuditError(audit.unavailable) when the last checkpoint could not be written; every acknowledged record
        is durable all the same.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = self._closing = True
            self._work.notify_all()
            self._room.notify_all()
        self._writer.join()
        with self._lock:
            self._finishing = True
            self._attempted = self._covered
            self._progress.notify_all()
        self._scribe.join()
        try:
            self._files.fdatasync(self._opened.checkpoints)
        except OSError as error:
            raise _uncovered(str(error.strerror)) from error
        finally:
            self._files.close(self._opened.checkpoints)
            self._files.close(self._opened.records)
            os.close(self._opened.lock)
        if self._covered < self._head.seq:
            raise _uncovered(self._broken or "the checkpoint could not be written")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Runs a thread's work; a thread that dies takes the log out of service instead of leaving it half alive."""
        try:
            work()
        except BaseException:
            self._break("one of its threads failed")
            raise

    def _break(self, reason: str) -> None:
        """Denies from now on, until the log is opened anew."""
        with self._lock:
            self._broken = self._broken or reason
            pending, self._pending = self._pending, Batch()
            for condition in (self._work, self._room, self._progress):
                condition.notify_all()
        pending.settle(reason)

    def _write(self) -> None:
        while (batch := self._take()) is not None:
            try:
                self._commit(batch)
            finally:
                batch.settle("its writer failed")

    def _take(self) -> Batch | None:
        """The next batch as soon as there is one, or None when the log is closed or broken."""
        with self._lock:
            self._work.wait_for(lambda: self._pending.bodies or self._closing or self._broken)
            if not self._pending.bodies:
                return None
            batch, self._pending = self._pending, Batch()
            self._room.notify_all()
            return batch

    def _commit(self, batch: Batch) -> None:
        head, data = _chain(self._head, batch)
        records = self._opened.records
        try:
            self._files.append(records, data)
        except OSError as error:
            reason = f"a write failed ({error.strerror})"
            try:
                self._files.truncate(records, self._head.size)
            except OSError:
                self._break(f"{reason} and could not be undone")
            batch.settle(reason)
            return
        try:
            self._files.fdatasync(records)
        except OSError as error:
            # Records that nobody was told of must not be found in the page cache by whoever opens the log next.
            with contextlib.suppress(OSError):
                self._files.truncate(records, self._head.size)
            reason = f"fdatasync failed ({error.strerror}), so it denies until it is opened again"
            self._break(reason)
            batch.settle(reason)
            return
        self._head = head
        batch.settle()
        with self._lock:
            self._progress.notify()

    def _sign(self) -> None:
        while (head := self._next_head()) is not None:
            try:
                line = sign_checkpoint(
                    self._signer,
                    origin=self._opened.origin,
                    seq=head.seq,
                    line_hash=head.hash,
                    time_ns=self._clock_ns(),
                )
            except RingfenceError as error:
                self._break(f"a checkpoint could not be signed ({error.code})")
                return
            self._write_checkpoint(line, head)

    def _next_head(self) -> Head | None:
        """The newest head that no checkpoint was tried for, or None when there will be no more."""
        with self._lock:
            self._progress.wait_for(lambda: self._head.seq > self._attempted or self._finishing or self._broken)
            if self._broken or self._head.seq == self._attempted:
                return None
            self._attempted = self._head.seq
            return self._head

    def _write_checkpoint(self, line: bytes, head: Head) -> None:
        checkpoints = self._opened.checkpoints
        try:
            self._files.append(checkpoints, line)
        except OSError as error:
            # The records are durable without it, and the next checkpoint covers them too.
            try:
                self._files.truncate(checkpoints, self._checkpoints_size)
            except OSError:
                self._break(f"a checkpoint could not be written ({error.strerror}) and not undone")
            return
        self._checkpoints_size += len(line)
        with self._lock:
            # Both: `close` may have set the attempt back while this one was under way.
            self._covered = self._attempted = head.seq


def _chain(head: Head, batch: Batch) -> tuple[Head, bytes]:
    """The batch's lines after `head`, and the head behind them."""
    seq, prev = head.seq, head.hash
    lines: list[bytes] = []
    for time_ns, body in batch.bodies:
        seq += 1
        line = encode_line(seq, time_ns, prev, body)
        prev = line_hash(line)
        lines.append(line)
    data = b"".join(lines)
    return Head(seq, prev, head.size + len(data)), data


def _uncovered(reason: str) -> AuditError:
    return AuditError(
        UNAVAILABLE,
        f"The audit log was closed with its records durable, but the newest without a checkpoint: {reason}.",
        hint="Mend the disk and start the process again: opening the log signs what is there.",
    )
