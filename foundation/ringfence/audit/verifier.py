"""Checking a log offline with a public key alone: pure, lines in and a report out.

What it proves: every record up to the last checkpoint is the one that the key's holder logged, in that order, none
missing. What it cannot see: records cut off after the last checkpoint that the reader holds. The records after the
last checkpoint are chained to it, but not yet signed, and are counted as not covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ringfence.audit.checkpoint import Checkpoint, Verify, check_signature, decode_checkpoint
from ringfence.audit.errors import CORRUPT, FORGED_CHECKPOINT, AuditError
from ringfence.audit.records import GENESIS, decode_line, line_hash

TAIL_NOTE = (
    "Records cut off after the last checkpoint cannot be seen here: compare with a checkpoint that is held elsewhere."
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of a log found.

    records      how many records hold, from the first one on
    size         their bytes
    head         line hash of the last of them (64 zeros in an empty log)
    checkpoints  how many checkpoints hold
    last         the newest of them
    uncovered    records after it: not yet covered by a checkpoint
    torn         bytes of a half-written last record, which was never acknowledged
    bad_record   the first record that does not hold
    error        why the log does not hold
    """

    records: int = 0
    size: int = 0
    head: str = GENESIS
    checkpoints: int = 0
    last: Checkpoint | None = None
    torn: int = 0
    bad_record: int | None = None
    error: AuditError | None = None

    @property
    def uncovered(self) -> int:
        return self.records - (self.last.seq if self.last else 0)

    def check(self) -> None:
        """Raises the AuditError that names the first bad record, if there is one."""
        if self.error is not None:
            raise self.error


class _FoundError(Exception):
    """Carries the first thing that does not hold out of the walk."""

    def __init__(self, error: AuditError, bad_record: int | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.bad_record = bad_record


class _Walk:
    """The state of one check: how far records and checkpoints hold."""

    def __init__(self, checkpoints: Iterable[bytes], public: bytes, verify: Verify) -> None:
        self.public = public
        self.verify = verify
        self.records = self.size = self.checkpoints = self.torn = 0
        self.head = GENESIS
        self.last: Checkpoint | None = None
        self._checkpoints = _decoded(checkpoints)
        self._next: Checkpoint | None = None

    def run(self, lines: Iterable[bytes]) -> None:
        self._advance()
        for line in lines:
            if self.torn:
                raise _bad_line(self.records + 1, "the line has no end, but others follow.")
            if not line.endswith(b"\n"):
                self.torn = len(line)
                continue
            self._check_line(line)
            self.records += 1
            self.size += len(line)
            self.head = line_hash(line)
            while self._next is not None and self._next.seq == self.records:
                self._check(self._next)
                self._advance()
        if self._next is not None:
            raise _missing(self._next.seq, self.records)

    def _check_line(self, line: bytes) -> None:
        seq = self.records + 1
        try:
            entry = decode_line(line)
        except AuditError as error:
            raise _bad_line(seq, error.message) from error
        if entry.seq != seq:
            raise _bad_line(seq, f"the line carries the number {entry.seq}: missing, repeated or out of order.")
        if entry.prev != self.head:
            # A record under a checkpoint is proven, so only a later one can be the record that was changed.
            if self.records > (self.last.seq if self.last else 0):
                raise _bad_line(self.records, f"record {seq} was chained to another text of it.")
            raise _bad_line(seq, "it is not chained to the record before it.")

    def _advance(self) -> None:
        before = self._next
        self._next = next(self._checkpoints, None)
        if before is None or self._next is None:
            return
        if self._next.seq < before.seq or self._next.origin != before.origin:
            raise _FoundError(
                AuditError(
                    FORGED_CHECKPOINT,
                    f"The checkpoint after the one over record {before.seq} of {before.origin!r} is over record "
                    f"{self._next.seq} of {self._next.origin!r}: out of order, or of another log.",
                ),
                None,
            )

    def _check(self, checkpoint: Checkpoint) -> None:
        try:
            check_signature(checkpoint, self.public, self.verify)
        except AuditError as error:
            raise _FoundError(error, None) from error
        if checkpoint.hash != self.head:
            first = self.last.seq + 1 if self.last else 1
            raise _FoundError(
                AuditError(
                    CORRUPT,
                    f"The checkpoint over record {checkpoint.seq} names a hash that is not in the chain: at least one "
                    f"of the records {first} to {checkpoint.seq} was changed after it was signed.",
                    field=f"record {first}",
                ),
                first,
            )
        self.checkpoints += 1
        self.last = checkpoint


def verify_log(lines: Iterable[bytes], checkpoints: Iterable[bytes], public: bytes, verify: Verify) -> Report:
    """Checks a whole log; the lines of both files come with their newlines, a half-written last one without.

    Never raises for what the files hold: the report's `error` says what does not hold, and `check()` raises it.
    """
    walk = _Walk(checkpoints, public, verify)
    error: AuditError | None = None
    bad_record: int | None = None
    try:
        walk.run(lines)
    except _FoundError as found:
        error, bad_record = found.error, found.bad_record
    return Report(
        records=walk.records,
        size=walk.size,
        head=walk.head,
        checkpoints=walk.checkpoints,
        last=walk.last,
        torn=walk.torn,
        bad_record=bad_record,
        error=error,
    )


def _decoded(lines: Iterable[bytes]) -> Iterator[Checkpoint]:
    """The checkpoints of the lines; a half-written last one is left out."""
    rest = iter(lines)
    for line in rest:
        if not line.endswith(b"\n") and next(rest, None) is None:
            return
        try:
            yield decode_checkpoint(line)
        except AuditError as error:
            raise _FoundError(error, None) from error


def _bad_line(seq: int, reason: str) -> _FoundError:
    error = AuditError(
        CORRUPT,
        f"Record {seq} does not hold: {reason}",
        field=f"record {seq}",
        hint="Keep the folder as it is for an investigation, and start a new log in another folder.",
    )
    return _FoundError(error, seq)


def _missing(covered: int, records: int) -> _FoundError:
    error = AuditError(
        CORRUPT,
        f"A checkpoint covers record {covered}, but the log ends at record {records}: its end was cut off.",
        field=f"record {records + 1}",
        hint="Keep the folder as it is for an investigation, and start a new log in another folder.",
    )
    return _FoundError(error, records + 1)
