"""The files of a log: segments of records, their checkpoints, and what is left of a segment that was removed.

    records-FIRST.jsonl       a header, then the records from number FIRST on, one a line
    checkpoints-FIRST.note    the checkpoints whose last record is in that segment, each followed by a blank line
    compacted-FIRST.jsonl     in place of both, once retention has removed them

FIRST has 20 digits, so that names sort as numbers do. The header makes a segment stand alone: it holds the chain and
the tree as they were before it, and is proven by any checkpoint over a later record, because the root of that
checkpoint can only be reached from the right frontier.

    {"v":2,"origin":"ORIGIN","first":N,"prev":"HASH","peaks":["HASH",...]}

A compacted segment has the same header, and then one line for each checkpoint there was, and one for its end:

    {"to":N,"nodes":["HASH",...],"chain":"HASH"}

`nodes` are the fewest full subtrees that hold the leaves from the line before up to record N, `chain` the leaf hash of
record N. They are enough to prove that any checkpoint there was is a prefix of the log; the records they came from can
no longer be proven from the folder, but whoever kept an inclusion proof can still use it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from ringfence.audit.checkpoint import ORIGIN_PREFIX
from ringfence.audit.errors import CORRUPT, AuditError
from ringfence.audit.kinds import Position
from ringfence.audit.merkle import Frontier
from ringfence.audit.records import GENESIS, VERSION

_NAME = re.compile(r"(records|compacted)-([0-9]{20})\.jsonl|(checkpoints)-([0-9]{20})\.note")

Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Origin = Annotated[str, msgspec.Meta(max_length=600, pattern=rf"^{re.escape(ORIGIN_PREFIX)}[^\s+]+\Z")]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: Literal[2]
    origin: Origin
    first: Position
    prev: Hash
    peaks: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=64)]


class Covered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stretch of removed records up to number `to`: the subtrees over them, and the last one's leaf hash."""

    to: Position
    nodes: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=128)]
    chain: Hash


_HEADER = msgspec.json.Decoder(_Header)
_COVERED = msgspec.json.Decoder(Covered)


class Start(msgspec.Struct, frozen=True):
    """Where a segment begins: the log's origin, the leaf hash before it, and the tree before it."""

    origin: str
    prev: bytes = GENESIS
    tree: Frontier = Frontier()

    @property
    def first(self) -> int:
        return self.tree.size + 1


def records_name(first: int) -> str:
    """The name of the file with the records from number `first` on."""
    return f"records-{first:020d}.jsonl"


def checkpoints_name(first: int) -> str:
    """The name of the file with the checkpoints over that segment's records."""
    return f"checkpoints-{first:020d}.note"


def compacted_name(first: int) -> str:
    """The name of the file that is left of a removed segment."""
    return f"compacted-{first:020d}.jsonl"


def parse_name(name: str) -> tuple[str, int] | None:
    """The kind (`records`, `checkpoints`, `compacted`) and first number of a file of a log; None for another's."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    kind, first = (found[1], found[2]) if found[1] else (found[3], found[4])
    return kind, int(first)


def encode_header(start: Start) -> bytes:
    """The first line of a segment, newline included."""
    peaks = tuple(peak.hex() for peak in start.tree.peaks)
    return msgspec.json.encode(_Header(VERSION, start.origin, start.first, start.prev.decode(), peaks)) + b"\n"


def decode_header(line: bytes) -> Start:
    """What a segment's first line (without its newline) says. Raises AuditError(audit.corrupt)."""
    try:
        header = _HEADER.decode(line)
        tree = Frontier(header.first - 1, tuple(bytes.fromhex(peak) for peak in header.peaks))
    except (ValueError, RecursionError) as error:
        raise AuditError(CORRUPT, f"The line is not the header of a segment: {error}.") from error
    start = Start(header.origin, header.prev.encode(), tree)
    if encode_header(start) != line + b"\n" or (header.first == 1 and start.prev != GENESIS):
        raise AuditError(CORRUPT, "The header of a segment is not in the canonical encoding.")
    return start


def encode_covered(covered: Covered) -> bytes:
    """One line of a compacted segment, newline included."""
    return msgspec.json.encode(covered) + b"\n"


def decode_covered(line: bytes) -> Covered:
    """What a line of a compacted segment (without its newline) says. Raises AuditError(audit.corrupt)."""
    try:
        covered = _COVERED.decode(line)
    except (ValueError, RecursionError) as error:
        raise AuditError(CORRUPT, f"The line does not cover removed records: {error}.") from error
    if encode_covered(covered) != line + b"\n":
        raise AuditError(CORRUPT, "A line over removed records is not in the canonical encoding.")
    return covered
