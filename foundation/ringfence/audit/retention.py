"""Removing old segments: which ones may go, and what must stay so that the rest still proves itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.audit.checkpoint import decode_checkpoints
from ringfence.audit.errors import CORRUPT, AuditError
from ringfence.audit.files import FilePort, read_blocks
from ringfence.audit.folder import read_layout, read_notes
from ringfence.audit.merkle import cover, leaf_hash
from ringfence.audit.records import decode_line
from ringfence.audit.segments import (
    Covered,
    Start,
    checkpoints_name,
    compacted_name,
    decode_header,
    encode_covered,
    encode_header,
    records_name,
)
from ringfence.audit.settings import Settings


@dataclass(frozen=True, slots=True)
class Closed:
    """A segment that another follows: its first record, the next one's, its bytes, and when it ended (ns)."""

    first: int
    next: int
    size: int
    ended_ns: int


def removable(closed: Sequence[Closed], kept: int, covered: int, settings: Settings, now_ns: int) -> list[int]:
    """The first record numbers of the segments to remove, oldest first.

    `kept` are the bytes of all segments, `covered` the last record under a durable checkpoint. A segment goes only
    when that checkpoint is over a later record, because only then does what stays prove where it begins.
    """
    gone: list[int] = []
    for one in closed:
        too_large = 0 < settings.keep_bytes < kept
        too_old = 0 < settings.keep_age_s * 1_000_000_000 < now_ns - one.ended_ns
        if one.next > covered or not (too_large or too_old):
            break
        gone.append(one.first)
        kept -= one.size
    return gone


def retain(folder: Path, covered: int, settings: Settings, now_ns: int, files: FilePort) -> list[int]:
    """Removes what the settings no longer keep, and says which segments. Raises OSError and AuditError(audit.corrupt).

    A segment that does not lead to the next one's header is not removed: it is evidence.
    """
    layout = read_layout(folder)
    sizes = [(folder / records_name(first)).stat().st_size for first in layout.records]
    closed = [
        Closed(first, after, size, _first_time_ns(folder / records_name(after)))
        for first, after, size in zip(layout.records, layout.records[1:], sizes, strict=False)
    ]
    gone = removable(closed, sum(sizes), covered, settings, now_ns)
    for first in gone:
        after = next(one.next for one in closed if one.first == first)
        # In this order a crash between any two steps leaves a log that holds, and the rest is done the next time.
        files.create(folder / compacted_name(first), compact(folder, first, after))
        files.remove(folder / records_name(first))
        files.remove(folder / checkpoints_name(first))
    return gone


def compact(folder: Path, first: int, after: int) -> bytes:
    """What stays of the segment from record `first` on, which the one from record `after` on follows."""
    start = _start(folder / records_name(first))
    following = _start(folder / records_name(after))
    points = folder / checkpoints_name(first)
    notes = decode_checkpoints(read_notes(points)) if points.exists() else ()
    ends = sorted({signed.checkpoint.size for signed in notes})
    lines = [encode_header(start)]
    tree, chain = start.tree, start.prev.decode()
    leaves: list[bytes] = []
    rest = iter([*(end for end in ends if start.first <= end < after - 1), after - 1])
    end = next(rest)
    for line in _records(folder / records_name(first)):
        leaves.append(leaf_hash(line))
        if tree.size + len(leaves) == end:
            nodes = cover(tree.size, leaves)
            chain = leaves[-1].hex()
            tree = tree.extend(leaves)
            lines.append(encode_covered(Covered(end, tuple(node.hex() for node in nodes), chain)))
            leaves = []
            end = next(rest, after)
    if leaves or Start(start.origin, chain.encode(), tree) != following:
        raise AuditError(
            CORRUPT,
            f"The segment from record {first} on does not lead to the one from record {after} on; it is not removed.",
            field=f"record {first}",
            hint="Run `ringfence audit verify` on the folder.",
        )
    return b"".join(lines)


def _records(path: Path) -> Iterator[bytes]:
    """The lines of a segment without its header."""
    header = True
    for lines, _ in read_blocks(path):
        yield from lines[header:]
        header = False


def _start(path: Path) -> Start:
    for lines, _ in read_blocks(path):
        if lines:
            return decode_header(lines[0])
    raise AuditError(CORRUPT, f"{path.name} has no header.")


def _first_time_ns(path: Path) -> int:
    """When the segment before ended: the time of the first record behind it, or never while there is none."""
    for line in _records(path):
        return decode_line(line).time_ns
    return 2**63 - 1
