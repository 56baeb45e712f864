"""Opening a log's folder: one writer, every acknowledged record, no half-written one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ringfence.audit.anchor import Anchor, check_counter
from ringfence.audit.checkpoint import Checkpoint, Keys, Signed, Signer, origin_of
from ringfence.audit.commit import Head, unavailable
from ringfence.audit.errors import CORRUPT, LOCKED, NEEDS_OPERATOR, NOT_FOUND, WRONG_KEY, AuditError
from ringfence.audit.files import FilePort, create_folder
from ringfence.audit.folder import DENIED, LOCK, RESUMED, SECOND_SIGNER, SIGNER, Layout, last_note, read_layout
from ringfence.audit.segments import Start, checkpoints_name, encode_header, records_name
from ringfence.audit.verifier import verify_log


@dataclass(frozen=True, slots=True)
class Opened:
    """A recovered log: descriptors that the caller closes, and where it stands.

    `dropped` are the bytes of a commit that nobody was told of, `resumed` says that an operator let the log go on.
    """

    lock: int
    records: int
    origin: str
    head: Head
    covered: int
    counter: int
    dropped: int
    resumed: bool


class Denied(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a log may not be opened before an operator has decided.

    `segment` and `size` say where the last acknowledged record ends, if what is behind it has to go.
    """

    reason: str
    segment: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Owners:
    """Who signs a log and how its signatures are checked, as its writer has them."""

    signer: Signer
    keys: Keys
    second: Signer | None = None
    anchor: Anchor | None = None


def recover(folder: Path, owners: Owners, files: FilePort) -> Opened:
    """Takes the folder's lock, checks the chain and drops what was half written when the last writer died.

    It checks from the newest segment that has a checkpoint on: what is before that is proven by the segment's header,
    which the checkpoint proves. Raises AuditError: audit.locked, audit.wrong_key, audit.needs_operator, audit.corrupt,
    audit.forged_checkpoint, audit.rolled_back or audit.unavailable.
    """
    try:
        with contextlib.ExitStack() as undo:
            opened = _recover(folder, owners, files, undo)
            undo.pop_all()
            return opened
    except OSError as error:
        raise unavailable(f"{folder} cannot be opened ({error.strerror})") from error


def _recover(folder: Path, owners: Owners, files: FilePort, undo: contextlib.ExitStack) -> Opened:
    create_folder(folder)
    lock = take_lock(folder)
    undo.callback(os.close, lock)
    _refuse_denied(folder)
    _pin(folder / SIGNER, owners.signer, files)
    if owners.second is not None:
        _pin(folder / SECOND_SIGNER, owners.second, files)

    layout = read_layout(folder)
    if not layout.records:
        layout = _begin(layout, owners.signer, files)
    newest = _newest(layout)
    notes = [newest.signed.data + b"\n"] if newest.signed else []
    report = verify_log(layout.pieces(newest.segment), notes, owners.keys)
    report.check()
    counter = _count(report.last, owners.anchor)

    segment = layout.records[-1]
    records = files.open(folder / records_name(segment))
    undo.callback(files.close, records)
    files.truncate(records, report.size)
    # What a killed writer left in the page cache was read above, and may be relied on only once it is on the disk.
    files.fdatasync(records)
    for first, size in newest.torn:
        _cut(folder / checkpoints_name(first), size, files)
    return Opened(
        lock=lock,
        records=records,
        origin=report.origin,
        head=Head(report.head.encode(), report.tree, segment, report.size),
        covered=report.last.size if report.last else 0,
        counter=counter,
        dropped=report.torn,
        resumed=(folder / RESUMED).exists(),
    )


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest checkpoint, its segment, and the files that end in a torn one, with the size of what is whole."""

    signed: Signed | None
    segment: int
    torn: tuple[tuple[int, int], ...]


def _newest(layout: Layout) -> _Newest:
    torn: list[tuple[int, int]] = []
    for first in reversed(layout.checkpoints):
        path = layout.folder / checkpoints_name(first)
        note = last_note(path)
        if path.stat().st_size > note.size:
            torn.append((first, note.size))
        if note.signed is not None:
            if first not in layout.records:
                raise _gone(layout.folder, note.signed.checkpoint.size)
            return _Newest(note.signed, first, tuple(torn))
    return _Newest(None, 0, tuple(torn))


def _begin(layout: Layout, signer: Signer, files: FilePort) -> Layout:
    """Makes the first segment of a new log."""
    if layout.compacted or layout.checkpoints:
        raise _gone(layout.folder, 1)
    start = Start(origin_of(layout.folder.name, signer.key_id))
    files.create(layout.folder / records_name(start.first), encode_header(start))
    return read_layout(layout.folder)


def _gone(folder: Path, record: int) -> AuditError:
    return AuditError(
        CORRUPT,
        f"The segment of {folder} with record {record} was removed: its checkpoints are there, its records are not.",
        field=f"record {record}",
        hint="Keep the folder as it is for an investigation, and start a new log in another folder.",
    )


def _count(last: Checkpoint | None, anchor: Anchor | None) -> int:
    """The value that the anchor's counter has now, after making up for an increment that a crash cut short."""
    logged = last.counter if last else 0
    if anchor is None:
        return logged
    if check_counter(logged, anchor.read()):
        check_counter(logged, anchor.increment())
    return logged


def _cut(path: Path, size: int, files: FilePort) -> None:
    descriptor = files.open(path)
    try:
        files.truncate(descriptor, size)
        files.fdatasync(descriptor)
    finally:
        files.close(descriptor)


def take_lock(folder: Path) -> int:
    """A descriptor that makes its holder the folder's only writer. Raises AuditError(audit.locked) and OSError."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AuditError(
            LOCKED,
            f"Another process writes the audit log in {folder}.",
            hint="Stop it first, or give this one a state directory of its own.",
        ) from error
    return descriptor


def _pin(path: Path, signer: Signer, files: FilePort) -> None:
    expected = signer.public.hex() + "\n"
    try:
        found = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        files.create(path, expected.encode())
        return
    if found != expected:
        raise AuditError(
            WRONG_KEY,
            f"The log in {path.parent} is signed by another key than {signer.key_id}.",
            field=path.name,
            hint="Open it with the key that began it, or begin a new log in another folder.",
        )


def deny(folder: Path, denied: Denied, files: FilePort) -> None:
    """Leaves a mark that a sync failed, so that no restart goes on before an operator has decided. Raises OSError."""
    files.create(folder / DENIED, msgspec.json.encode(denied) + b"\n")


def denied(folder: Path) -> Denied | None:
    """Why the log in `folder` waits for an operator, if it does. Raises AuditError(audit.corrupt) and OSError."""
    try:
        return msgspec.json.decode((folder / DENIED).read_bytes(), type=Denied)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise AuditError(
            CORRUPT, f"{DENIED} in {folder} cannot be read: {error}.", hint=f"Remove {DENIED} to let the log be opened."
        ) from error


def resume(folder: Path, files: FilePort) -> Denied:
    """Lets a log be opened again after a failed sync, as an operator's decision; the next opening puts it on record.

    Cuts off what was written behind the last acknowledged record, since nobody knows what of it is on the disk. Raises
    AuditError: audit.not_found (nothing to decide), audit.locked, audit.corrupt; OSError.
    """
    found = denied(folder)
    if found is None:
        raise AuditError(NOT_FOUND, f"The log in {folder} waits for no decision.", hint="Start its process as usual.")
    lock = take_lock(folder)
    try:
        path = folder / records_name(found.segment)
        if path.exists() and path.stat().st_size > found.size:
            _cut(path, found.size, files)
        files.create(folder / RESUMED, b"")
        files.remove(folder / DENIED)
    finally:
        os.close(lock)
    return found


def _refuse_denied(folder: Path) -> None:
    found = denied(folder)
    if found is not None:
        raise AuditError(
            NEEDS_OPERATOR,
            f"The log in {folder} stopped because {found.reason}, and waits for an operator.",
            hint=f"Look at the disk, then run `ringfence audit resume {folder}` and start the process again.",
        )
