"""A log's folder as its readers see it: which files there are, in which order, and their checkpoints."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ringfence.audit.checkpoint import Signed, decode_checkpoints, split_entries
from ringfence.audit.errors import CORRUPT, WRONG_LAYOUT, AuditError
from ringfence.audit.files import read_blocks
from ringfence.audit.segments import checkpoints_name, compacted_name, parse_name, records_name
from ringfence.audit.verifier import Piece

SIGNER = "signer.pub"
SECOND_SIGNER = "second.pub"
LOCK = "lock"
DENIED = "denied.json"
RESUMED = "resumed"

_OLD_LAYOUT = "records.jsonl"
_LAST_NOTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a log by the number of their first record, each in order; what is compacted comes before records."""

    folder: Path
    compacted: tuple[int, ...]
    records: tuple[int, ...]
    checkpoints: tuple[int, ...]

    def pieces(self, since: int = 0) -> list[Piece]:
        """What is left of removed segments, then the segments, from the one that begins at record `since` on."""
        gone = [Piece(one, read_blocks(self.folder / compacted_name(one)), compacted=True) for one in self.compacted]
        kept = [Piece(one, read_blocks(self.folder / records_name(one))) for one in self.records]
        return [piece for piece in (*gone, *kept) if piece.first >= since]

    def notes(self, sizes: dict[int, int]) -> Iterator[bytes]:
        """The entries of all checkpoints, of each file the first `sizes[first]` bytes."""
        for first in self.checkpoints:
            yield from read_notes(self.folder / checkpoints_name(first), until=sizes[first])

    def note_sizes(self) -> dict[int, int]:
        """How long each file of checkpoints is now.

        Taken before the records are read, so that a log that is still being written is never behind its checkpoints.
        """
        return {first: (self.folder / checkpoints_name(first)).stat().st_size for first in self.checkpoints}


def read_layout(folder: Path) -> Layout:
    """The files of a log. Raises AuditError(audit.wrong_layout) for a file that looks like one of a log and is not."""
    found: dict[str, set[int]] = {"records": set(), "checkpoints": set(), "compacted": set()}
    for name in os.listdir(folder):
        parsed = parse_name(name)
        if parsed is not None:
            found[parsed[0]].add(parsed[1])
        elif name.startswith(("records", "checkpoints", "compacted")) and not name.endswith(".new"):
            older = " of a version before the first release" if name == _OLD_LAYOUT else ""
            raise AuditError(
                WRONG_LAYOUT,
                f"{folder} holds {name}, which is no file of this log{older}.",
                hint="Move it away, or begin a new log in another folder.",
            )
    # A crash between compacting and removing leaves both, and then the records are the better evidence.
    compacted = found["compacted"] - found["records"]
    # The checkpoints of a removed segment go after its records do.
    checkpoints = found["checkpoints"] - compacted
    return Layout(folder, *(tuple(sorted(numbers)) for numbers in (compacted, found["records"], checkpoints)))


def is_log(folder: Path) -> bool:
    """Whether a folder holds any file of a log; one whose records were removed must be reported, not passed over."""
    return folder.is_dir() and any(
        parse_name(name) is not None or name in (SIGNER, _OLD_LAYOUT) for name in os.listdir(folder)
    )


def read_notes(path: Path, *, until: int | None = None) -> Iterator[bytes]:
    """The entries of a file of checkpoints, as `split_entries` has them."""
    return split_entries(
        line
        for lines, rest in read_blocks(path, until=until)
        for line in (*(line + b"\n" for line in lines), *filter(None, (rest,)))
    )


@dataclass(frozen=True, slots=True)
class LastNote:
    """The newest checkpoint of a file, if it has one, and how many bytes of the file are whole checkpoints."""

    signed: Signed | None
    size: int


def last_note(path: Path) -> LastNote:
    """The newest checkpoint of a file. Raises AuditError(audit.corrupt) where a broken one comes before a whole one."""
    with path.open("rb") as file:
        skipped = max(0, file.seek(0, os.SEEK_END) - _LAST_NOTES)
        file.seek(skipped)
        entries = list(split_entries(io.BytesIO(file.read())))
    if skipped:
        skipped += len(entries.pop(0))
    found: Signed | None = None
    for signed in decode_checkpoints(entries):
        found = signed
        skipped += len(signed.data) + 1
    if found is None and skipped:
        raise AuditError(CORRUPT, f"The end of {path.name} holds no checkpoint.")
    return LastNote(found, skipped)
