"""The audit log's writer: append, wait until durable, sign afterwards.

One thread commits: it takes everything that was appended while the previous commit ran, writes it with one call and
calls `fdatasync` once. The scribe's thread signs checkpoints over what has become durable, so that no caller ever
waits for a signature.

A failed write is undone and may succeed later, when there is space again. After a failed `fdatasync` nobody knows what
the disk holds, so the log denies, and cannot be opened before an operator has decided (`ringfence audit resume`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from ringfence.audit.anchor import Anchor
from ringfence.audit.checkpoint import Keys, Signer
from ringfence.audit.commit import MAX_BYTES, MAX_RECORDS, Batch, Head, Ticket, chain, unavailable
from ringfence.audit.errors import CLOSED, CORRUPT, UNAVAILABLE, AuditError
from ringfence.audit.files import FORGET_BYTES, FilePort, OsFiles, read_blocks
from ringfence.audit.folder import RESUMED, read_layout
from ringfence.audit.kinds import Operator, Record
from ringfence.audit.merkle import leaf_hash
from ringfence.audit.notes import Verify
from ringfence.audit.records import Entry, decode_line, encode_data
from ringfence.audit.recovery import Denied, Opened, Owners, deny, recover
from ringfence.audit.scribe import Scribe, Signing
from ringfence.audit.segments import Start, decode_header, encode_header, records_name
from ringfence.audit.settings import Settings

PATIENCE_S = 10.0
"""How long a caller waits for room in the queue, or for durability, before it must deny."""


class AuditLog:
    """An append-only, hash-chained log with signed checkpoints. Thread-safe; one writer a folder.

    Do not fork a process while it has a log open: the child would keep the folder's lock.
    """

    def __init__(self, folder: Path, opened: Opened, signing: Signing, files: FilePort) -> None:
        self._folder = folder
        self._opened = opened
        self._settings = signing.settings
        self._clock_ns = signing.clock_ns
        self._files = files

        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._pending = Batch()
        self._idle = False
        self._records = opened.records
        self._head = opened.head
        self._began_ns = 0
        self._cached = 0
        self._broken = ""
        self._closing = self._closed = False

        self._scribe = Scribe(folder, files, signing, covered=opened.covered, counter=opened.counter, fail=self._fail)
        if opened.head.seq > opened.covered:
            self._scribe.offer(opened.head)
        self._writer = threading.Thread(target=self._guarded, name="audit-write", daemon=True)
        self._writer.start()

    @classmethod
    def open(
        cls,
        folder: Path,
        signer: Signer,
        *,
        clock_ns: Callable[[], int],
        verify: Verify,
        files: FilePort | None = None,
        second: Signer | None = None,
        anchor: Anchor | None = None,
        settings: Settings | None = None,
    ) -> AuditLog:
        """Opens the log in `folder`, creating it where there is none, and recovers it after a crash.

        `clock_ns` gives nanoseconds since the Unix epoch. `second` is a further key, SLH-DSA-SHA2-128f, that signs on
        a slower cadence; `anchor` a counter that makes a log that was cut back be noticed. Raises AuditError:
        audit.locked (a second writer), audit.wrong_key, audit.needs_operator (after a failed sync), audit.corrupt
        (naming the first bad record), audit.forged_checkpoint, audit.rolled_back, audit.unavailable.
        """
        port = files or OsFiles()
        settings = settings or Settings()
        opened = recover(folder, Owners(signer, Keys(signer.public, verify), second, anchor), port)
        log = cls(folder, opened, Signing(opened.origin, signer, second, anchor, settings, clock_ns), port)
        try:
            log._record_opening(opened)
        except AuditError:
            with contextlib.suppress(AuditError):
                log.close()
            raise
        return log

    def append(self, record: Record, *, timeout_s: float = PATIENCE_S) -> Ticket:
        """Queues a record; it is not durable before `wait` or `durable` has returned for the ticket.

        A full queue slows the caller down, by `timeout_s` at most. Raises AuditError: audit.bad_record,
        audit.unavailable, audit.closed.
        """
        data = encode_data(record)
        with self._lock:
            batch = self._pending
            items = batch.items
            if self._broken or self._closing or len(items) >= MAX_RECORDS or batch.size >= MAX_BYTES:
                batch = self._make_room(timeout_s)
                items = batch.items
            items.append((self._clock_ns(), record, data))
            batch.size += len(data)
            if self._idle:
                self._idle = False
                self._work.notify()
            return batch, len(items) - 1

    def wait(self, ticket: Ticket, timeout_s: float = PATIENCE_S) -> None:
        """Blocks until the record is durable.

        Raises AuditError: audit.unavailable, audit.timeout, and audit.bad_record for a record that could not have
        been read back; one of kind operator, `unreadable`, stands in its place.
        """
        batch, index = ticket
        batch.wait(index, timeout_s)

    async def durable(self, ticket: Ticket, timeout_s: float = PATIENCE_S) -> None:
        """Awaits until the record is durable, without a thread. Raises what `wait` raises."""
        batch, index = ticket
        await batch.durable(index, timeout_s)

    def records(self, since_ns: int = 0) -> Iterator[Entry]:
        """The durable records with a time of `since_ns` or later, oldest first, as far back as they are kept.

        The chain is checked on the way up to the head that the log itself wrote, so whoever takes the last one has
        only seen records that are in it. What becomes durable after the first step is left out. Raises AuditError:
        audit.unavailable, audit.corrupt.
        """
        head = self._head
        prev = b""
        try:
            for first in read_layout(self._folder).records:
                if first > head.segment:
                    break
                until = head.size if first == head.segment else None
                header = True
                for lines, rest in read_blocks(self._folder / records_name(first), until=until):
                    for line in (*lines, *filter(None, (rest,))):
                        if header:
                            prev = prev or decode_header(line).prev
                            header = False
                            continue
                        entry = decode_line(line)
                        if entry.prev.encode() != prev:
                            raise AuditError(CORRUPT, f"Record {entry.seq} is not chained to the one before it.")
                        prev = leaf_hash(line).hex().encode()
                        if entry.time_ns >= since_ns:
                            yield entry
        except OSError as error:
            raise unavailable(f"its records cannot be read ({error.strerror})") from error
        if prev != head.chain:
            raise AuditError(CORRUPT, f"The records do not lead to record {head.seq}, which the log wrote.")

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
        self._scribe.finish()
        self._files.close(self._records)
        os.close(self._opened.lock)
        if self._scribe.covered < self._head.seq:
            raise _uncovered(self._broken or "the checkpoint could not be written")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record_opening(self, opened: Opened) -> None:
        """Puts on record what opening the log had to do to it."""
        if opened.dropped:
            self.wait(self.append(Operator(event="recovered", component="audit", dropped_bytes=opened.dropped)))
        if opened.resumed:
            self.wait(self.append(Operator(event="resumed", component="audit")))
            try:
                self._files.remove(self._folder / RESUMED)
            except OSError as error:
                raise unavailable(f"{RESUMED} cannot be removed ({error.strerror})") from error

    def _make_room(self, timeout_s: float) -> Batch:
        """The batch to append to once it has room; the lock is held."""
        self._room.wait_for(lambda: not self._pending.full or self._closing or self._broken, timeout_s)
        if self._broken:
            raise unavailable(self._broken)
        if self._closing:
            raise AuditError(CLOSED, "The audit log was closed.", hint="Deny what depends on the record.")
        if self._pending.full:
            raise unavailable(f"its queue was full for {timeout_s:g} s")
        return self._pending

    def _guarded(self) -> None:
        """Runs the writer; if it dies, the log goes out of service instead of being left half alive."""
        try:
            self._write()
        except BaseException:
            self._fail("one of its threads failed", False)
            raise

    def _fail(self, reason: str, sync: bool, head: Head | None = None) -> None:
        """Denies from now on, until the log is opened anew; after a failed sync an operator must allow that first."""
        with self._lock:
            self._broken = self._broken or reason
            pending, self._pending = self._pending, Batch()
            self._work.notify_all()
            self._room.notify_all()
        self._scribe.stop()
        if sync:
            # Where even this cannot be written, the process denies all the same until it ends.
            with contextlib.suppress(OSError):
                deny(self._folder, Denied(reason, head.segment, head.size) if head else Denied(reason), self._files)
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
            while not (self._pending.items or self._closing or self._broken):
                self._idle = True
                self._work.wait()
            self._idle = False
            if not self._pending.items:
                return None
            batch, self._pending = self._pending, Batch()
            self._room.notify_all()
            return batch

    def _commit(self, batch: Batch) -> None:
        self._turn_over(batch.items[0][0])
        head, data = chain(self._head, batch)
        try:
            self._files.append(self._records, data)
        except OSError as error:
            reason = f"a write failed ({error.strerror})"
            try:
                self._files.truncate(self._records, self._head.size)
            except OSError:
                self._fail(f"{reason} and could not be undone", False)
            batch.settle(reason)
            return
        try:
            self._files.fdatasync(self._records)
        except OSError as error:
            # Records that nobody was told of must not be found in the page cache by whoever opens the log next.
            with contextlib.suppress(OSError):
                self._files.truncate(self._records, self._head.size)
            reason = f"fdatasync failed ({error.strerror}), so it denies until an operator decides"
            self._fail(reason, True, self._head)
            batch.settle(reason)
            return
        self._head = head
        batch.settle()
        self._scribe.offer(head)
        self._cached += len(data)
        if self._cached >= FORGET_BYTES:
            self._forget()

    def _forget(self) -> None:
        """Lets go of the memory with the durable part of the segment; whoever reads it reads it from the disk."""
        self._cached = 0
        self._files.forget(self._records, self._head.size)

    def _turn_over(self, now_ns: int) -> None:
        """Begins a new segment when the present one is large or old enough; where it cannot, goes on with this one."""
        head = self._head
        self._began_ns = self._began_ns or now_ns
        if head.seq < head.segment:
            return
        aged = now_ns - self._began_ns >= self._settings.segment_age_s * 1_000_000_000
        if head.size < self._settings.segment_bytes and not aged:
            return
        start = Start(self._opened.origin, head.chain, head.tree)
        header = encode_header(start)
        path = self._folder / records_name(start.first)
        try:
            self._files.create(path, header)
            descriptor = self._files.open(path)
        except OSError as error:
            # The next segment must not be there while this one still grows. Where the disk is full, the write denies.
            try:
                self._files.remove(path)
            except OSError:
                self._fail(f"a new segment could not be begun ({error.strerror}) and not undone", False)
            return
        self._forget()
        self._files.close(self._records)
        self._records = descriptor
        self._head = Head(head.chain, head.tree, start.first, len(header))
        self._began_ns = now_ns


def _uncovered(reason: str) -> AuditError:
    return AuditError(
        UNAVAILABLE,
        f"The audit log was closed with its records durable, but the newest without a checkpoint: {reason}.",
        hint="Mend the disk and start the process again: opening the log signs what is there.",
    )
