"""Checking a log offline with a public key alone: pure, lines in and a report out.

What it proves: every record up to the last checkpoint is the one that the key's holder logged, in that order, none
missing. What it cannot see: records cut off after the last checkpoint that the reader holds. The records after the
last checkpoint are chained to it, but not yet signed, and are counted as not covered.

The end of the last segment may hold what a crash left of a commit that nobody was told of: cut short, or with pages
that never reached the disk while later ones did. Such a tail is set aside, and counted, only while nothing speaks for
it: no checkpoint covers it, and no line behind the first broken one has a `base` that says it was durable. A line that
is whole but in the wrong place is never such a leftover, because a disk loses pages and does not move them.
"""

from __future__ import annotations

import hashlib
import re
from binascii import hexlify
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ringfence.audit.checkpoint import Checkpoint, Keys, Signed, decode_checkpoints
from ringfence.audit.errors import CORRUPT, FORGED_CHECKPOINT, UNPROVABLE, UNSIGNED, AuditError
from ringfence.audit.merkle import Frontier
from ringfence.audit.records import GENESIS, decode_line, line_start
from ringfence.audit.segments import Start, decode_covered, decode_header

TAIL_NOTE = (
    "Records cut off after the last checkpoint cannot be seen here: compare with a checkpoint that is held elsewhere "
    "(--expect), or with the anchor's counter (--counter)."
)

Block = tuple[list[bytes], bytes]
"""Whole lines without their newlines, and what follows them without one: the end of a file, or no line at all."""

_sha256 = hashlib.sha256
_PLACE = re.compile(rb'\{"v":2,"seq":[0-9]{1,19},"base":([0-9]{1,19}),"prev":"')
_PLACE_SIZE = 96
_HINT = "Keep the folder as it is for an investigation, and start a new log in another folder."


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment of a log, or what is left of one: the number in its file's name, and its lines."""

    first: int
    blocks: Iterable[Block]
    compacted: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of a log found.

    origin       the log's name in its checkpoints
    first        number of the first record that was read; those before it were removed by retention
    records      number of the last record that holds
    size         bytes of the last segment up to its end
    head         leaf hash of that record (64 zeros in an empty log)
    tree         the Merkle tree over all records up to it
    checkpoints  how many checkpoints hold
    seconded     how many of them the second key signed too
    last         the newest of them
    expected     whether an expected checkpoint was found to be a prefix of the log
    torn         bytes of records at the end that were never acknowledged
    bad_record   the first record that does not hold
    error        why the log does not hold
    """

    origin: str = ""
    first: int = 1
    records: int = 0
    size: int = 0
    head: str = GENESIS.decode()
    tree: Frontier = field(default_factory=Frontier)
    checkpoints: int = 0
    seconded: int = 0
    last: Checkpoint | None = None
    expected: bool = False
    torn: int = 0
    bad_record: int | None = None
    error: AuditError | None = None

    @property
    def uncovered(self) -> int:
        """Records after the newest checkpoint."""
        return self.records - (self.last.size if self.last else 0)

    def check(self) -> None:
        """Raises the AuditError that names the first bad record, if there is one."""
        if self.error is not None:
            raise self.error


class _FoundError(Exception):
    """Carries the first thing that does not hold out of the walk."""

    def __init__(self, error: AuditError, bad_record: int | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.bad_record = bad_record


class _Walk:
    """The state of one check: how far records and checkpoints hold."""

    def __init__(self, notes: Iterable[bytes], keys: Keys, expect: Signed | None) -> None:
        self.keys = keys
        self.origin = ""
        self.first = 0
        self.seq = self.size = self.checkpoints = self.seconded = self.torn = 0
        self.base = -1
        self.prev = GENESIS
        self.tree = Frontier()
        self.last: Checkpoint | None = None
        self.expected = False
        self._expect = expect
        self._notes = decode_checkpoints(notes)
        self._next: Signed | None = None

    def run(self, pieces: Iterable[Piece]) -> None:
        self._advance()
        rest = iter(pieces)
        piece = next(rest, None)
        while piece is not None:
            following = next(rest, None)
            self._piece(piece, ends=following is None)
            piece = following
        if self._next is not None:
            raise _missing(self._next.checkpoint.size, self.seq)
        if self._expect is not None and not self.expected:
            self._unexpected(self._expect.checkpoint)
        if self.last is None and self.first > 1:
            raise _FoundError(
                AuditError(
                    UNSIGNED,
                    f"The log begins at record {self.first}, and no checkpoint proves what was before it.",
                    hint="After a crash, start its process again: opening the log signs what is there.",
                )
            )

    def _piece(self, piece: Piece, *, ends: bool) -> None:
        blocks = iter(piece.blocks)
        lines, torn = next(blocks, ([], b""))
        if not lines:
            raise _bad_line(self.seq + 1, "the segment it begins has no header.")
        self._begin(piece, lines[0])
        blocks = _chained((lines[1:], torn), blocks)
        if piece.compacted:
            self._covered(blocks)
            return
        self.size = len(lines[0]) + 1
        for lines, torn in blocks:
            taken = self._lines(lines)
            if taken < len(lines):
                self._broken(lines[taken], _chained((lines[taken + 1 :], torn), blocks), ends=ends)
                return
            if torn:
                self._broken(torn, blocks, ends=ends, whole=False)
                return

    def _begin(self, piece: Piece, line: bytes) -> None:
        """Takes a segment's header: the start of the walk, or what the walk must have come to."""
        try:
            start = decode_header(line)
        except AuditError as error:
            raise _bad_line(piece.first, error.message) from error
        if not self.origin:
            self.origin, self.prev, self.tree, self.seq = start.origin, start.prev, start.tree, start.tree.size
        if start != Start(self.origin, self.prev, self.tree) or piece.first != start.first:
            raise _bad_line(
                self.seq + 1,
                f"the segment from record {piece.first} on does not follow record {self.seq}: one was removed, "
                "renamed or replaced.",
            )
        self.base = -1
        self.first = self.first or (0 if piece.compacted else start.first)
        self._meet()

    def _covered(self, blocks: Iterator[Block]) -> None:
        """Takes what is left of a removed segment."""
        for lines, torn in blocks:
            for line in (*lines, *filter(None, (torn,))):
                try:
                    covered = decode_covered(line)
                    self.tree = self.tree.extend_covered([bytes.fromhex(node) for node in covered.nodes], covered.to)
                except AuditError as error:
                    raise _bad_line(self.seq + 1, error.message) from error
                self.seq, self.prev = covered.to, covered.chain.encode()
                self._meet()

    def _lines(self, lines: list[bytes]) -> int:
        """Takes lines of records; gives how many, which is fewer than there are when one does not hold."""
        taken = 0
        while taken < len(lines):
            stop = len(lines)
            for signed in (self._next, self._expect):
                if signed is not None and signed.checkpoint.size > self.seq:
                    stop = min(stop, taken + signed.checkpoint.size - self.seq)
            some = self._chain(lines[taken:stop])
            taken += some
            if taken < stop:
                break
            self._meet()
        return taken

    def _chain(self, lines: list[bytes]) -> int:
        """Takes lines up to the first that is not chained, or, behind the last checkpoint, is no record."""
        seq, base, prev = self.seq, self.base, self.prev
        leaves: list[bytes] = []
        for line in lines:
            seq += 1
            if not line.startswith(line_start(seq, base, prev)):
                if not line.startswith(line_start(seq, seq - 1, prev)):
                    break
                base = seq - 1
            if self._next is None and not _is_record(line):
                break
            leaf = _sha256(b"\0" + line).digest()
            prev = hexlify(leaf)
            leaves.append(leaf)
        taken = len(leaves)
        self.seq, self.base, self.prev = self.seq + taken, base, prev
        self.tree = self.tree.extend(leaves)
        self.size += sum(map(len, lines[:taken])) + taken
        return taken

    def _broken(self, line: bytes, rest: Iterator[Block], *, ends: bool, whole: bool = True) -> None:
        """Sets the tail from `line` on aside, or raises where it is no leftover of a crash."""
        seq = self.seq + 1
        reason = self._misplaced(line) if whole else "the line has no end."
        if not ends:
            raise _bad_line(seq, reason)
        window = b""
        for lines, piece in _chained(([line], b"") if whole else ([], line), rest):
            for one in (*lines, piece):
                for found in _PLACE.finditer(window[-_PLACE_SIZE:] + one):
                    if int(found[1]) >= seq:
                        raise _bad_line(seq, f"{reason[:-1]}, and a later one says that it was acknowledged.")
                window = one
            self.torn += sum(map(len, lines)) + len(lines) + len(piece)
        for signed in (self._next, self._expect):
            if signed is not None and signed.checkpoint.size >= seq:
                raise _bad_line(seq, reason) if whole else _missing(signed.checkpoint.size, self.seq)

    def _misplaced(self, line: bytes) -> str:
        """Why a broken line may be a leftover of a crash; raises for a record that is whole but not in its place."""
        seq = self.seq + 1
        try:
            entry = decode_line(line)
        except AuditError as error:
            return error.message
        if entry.seq != seq:
            raise _bad_line(seq, f"the line carries the number {entry.seq}: missing, repeated or out of order.")
        if entry.prev.encode() != self.prev:
            # A record under a checkpoint is proven, so only a later one can be the record that was changed.
            if self.seq > (self.last.size if self.last else self.first - 1):
                raise _bad_line(self.seq, f"record {seq} was chained to another text of it.")
            raise _bad_line(seq, "it is not chained to the record before it.")
        raise _bad_line(seq, f"it claims to follow {entry.base} durable records, which is not how commits begin.")

    def _meet(self) -> None:
        """Checks the checkpoints over exactly the records so far."""
        while self._next is not None and self._next.checkpoint.size == self.seq:
            self._check(self._next)
            self._advance()
        expect = self._expect
        if expect is not None and not self.expected and expect.checkpoint.size == self.seq:
            self._compare(expect.checkpoint)
            self.expected = True

    def _advance(self) -> None:
        before = self._next
        try:
            self._next = next(self._notes, None)
        except AuditError as error:
            raise _FoundError(error) from error
        if before is None or self._next is None:
            return
        if self._next.checkpoint.size < before.checkpoint.size:
            raise _FoundError(
                AuditError(
                    FORGED_CHECKPOINT,
                    f"The checkpoint after the one over record {before.checkpoint.size} is over record "
                    f"{self._next.checkpoint.size}: out of order.",
                )
            )

    def _check(self, signed: Signed) -> None:
        try:
            seconded = signed.check(self.keys)
        except AuditError as error:
            raise _FoundError(error) from error
        self._compare(signed.checkpoint)
        self.checkpoints += 1
        self.seconded += seconded
        self.last = signed.checkpoint

    def _compare(self, checkpoint: Checkpoint) -> None:
        if checkpoint.origin != self.origin:
            raise _FoundError(
                AuditError(
                    FORGED_CHECKPOINT,
                    f"The checkpoint over record {checkpoint.size} is of the log {checkpoint.origin!r}, and this is "
                    f"{self.origin!r}.",
                )
            )
        if checkpoint.root != self.tree.root() or checkpoint.chain.encode() != self.prev:
            first = self.last.size + 1 if self.last else max(self.first, 1)
            raise _FoundError(
                AuditError(
                    CORRUPT,
                    f"The checkpoint over record {checkpoint.size} was signed over other records: at least one of the "
                    f"records {first} to {checkpoint.size} was changed after it was signed.",
                    field=f"record {first}",
                    hint=_HINT,
                ),
                first,
            )

    def _unexpected(self, checkpoint: Checkpoint) -> None:
        if checkpoint.size > self.seq:
            raise _missing(checkpoint.size, self.seq)
        raise _FoundError(
            AuditError(
                UNPROVABLE,
                f"The expected checkpoint covers {checkpoint.size} records, and what is kept of those that retention "
                "removed cannot show that tree: it was not one of this log's checkpoints, or its proofs are gone.",
                hint="Compare with a newer checkpoint.",
            )
        )


def verify_log(pieces: Iterable[Piece], notes: Iterable[bytes], keys: Keys, *, expect: Signed | None = None) -> Report:
    """Checks a log from its first piece to its last; `notes` are its checkpoints' entries in the same order.

    `expect` is a checkpoint from elsewhere that must be signed and a prefix of the log. Never raises for what the
    files hold: the report's `error` says what does not hold, and `check()` raises it.
    """
    walk = _Walk(notes, keys, expect)
    error: AuditError | None = None
    bad_record: int | None = None
    try:
        if expect is not None:
            expect.check(keys)
        walk.run(pieces)
    except _FoundError as found:
        error, bad_record = found.error, found.bad_record
    except AuditError as found_outside:
        error = found_outside
    return Report(
        origin=walk.origin,
        first=walk.first or walk.seq + 1,
        records=walk.seq,
        size=walk.size,
        head=walk.prev.decode(),
        tree=walk.tree,
        checkpoints=walk.checkpoints,
        seconded=walk.seconded,
        last=walk.last,
        expected=walk.expected,
        torn=walk.torn,
        bad_record=bad_record,
        error=error,
    )


def _is_record(line: bytes) -> bool:
    try:
        decode_line(line)
    except AuditError:
        return False
    return True


def _chained(block: Block, blocks: Iterator[Block]) -> Iterator[Block]:
    yield block
    yield from blocks


def _bad_line(seq: int, reason: str) -> _FoundError:
    error = AuditError(CORRUPT, f"Record {seq} does not hold: {reason}", field=f"record {seq}", hint=_HINT)
    return _FoundError(error, seq)


def _missing(covered: int, records: int) -> _FoundError:
    error = AuditError(
        CORRUPT,
        f"A checkpoint covers record {covered}, but the log ends at record {records}: its end was cut off.",
        field=f"record {records + 1}",
        hint=_HINT,
    )
    return _FoundError(error, records + 1)
