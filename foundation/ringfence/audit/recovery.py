"""Opening a log's folder: one writer, every acknowledged record, no half-written one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ringfence.audit.checkpoint import MAX_CHECKPOINT_LINE, Signer, Verify, decode_checkpoint
from ringfence.audit.commit import unavailable
from ringfence.audit.errors import LOCKED, WRONG_KEY, AuditError
from ringfence.audit.files import FilePort, create_folder, read_lines, replace_file
from ringfence.audit.records import MAX_LINE
from ringfence.audit.verifier import verify_log

RECORDS = "records.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
SIGNER = "signer.pub"
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the durable chain: records, line hash of the last one, bytes of the file."""

    seq: int
    hash: str
    size: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A recovered log: descriptors that the caller closes, and where it stands."""

    lock: int
    records: int
    checkpoints: int
    head: Head
    covered: int
    checkpoints_size: int
    origin: str


def recover(folder: Path, signer: Signer, verify: Verify, files: FilePort) -> Opened:
    """Takes the folder's lock, checks the chain and drops what was half written when the last writer died.

    Raises AuditError: audit.locked, audit.wrong_key, audit.corrupt, audit.forged_checkpoint or audit.unavailable.
    """
    try:
        with contextlib.ExitStack() as undo:
            opened = _recover(folder, signer, verify, files, undo)
            undo.pop_all()
            return opened
    except OSError as error:
        raise unavailable(f"{folder} cannot be opened ({error.strerror})") from error


def _recover(folder: Path, signer: Signer, verify: Verify, files: FilePort, undo: contextlib.ExitStack) -> Opened:
    create_folder(folder)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    undo.callback(os.close, lock)
    _lock(lock, folder)
    _pin_signer(folder / SIGNER, signer)

    last, checkpoints_size = _last_complete(read_lines(folder / CHECKPOINTS, MAX_CHECKPOINT_LINE))
    report = verify_log(read_lines(folder / RECORDS, MAX_LINE), [last] if last else [], signer.public, verify)
    report.check()

    records = files.open(folder / RECORDS)
    undo.callback(files.close, records)
    checkpoints = files.open(folder / CHECKPOINTS)
    undo.callback(files.close, checkpoints)
    files.truncate(records, report.size)
    files.truncate(checkpoints, checkpoints_size)
    # What a killed writer left in the page cache was read above, and may be relied on only once it is on the disk.
    files.fdatasync(records)
    return Opened(
        lock=lock,
        records=records,
        checkpoints=checkpoints,
        head=Head(report.records, report.head, report.size),
        covered=report.last.seq if report.last else 0,
        checkpoints_size=checkpoints_size,
        origin=decode_checkpoint(last).origin if last else folder.name,
    )


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise AuditError(
            LOCKED,
            f"Another process writes the audit log in {folder}.",
            hint="Stop it first, or give this one a state directory of its own.",
        ) from error


def _pin_signer(path: Path, signer: Signer) -> None:
    expected = signer.public.hex() + "\n"
    try:
        found = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        replace_file(path, expected.encode())
        return
    if found != expected:
        raise AuditError(
            WRONG_KEY,
            f"The log in {path.parent} is signed by another key than {signer.key_id}.",
            hint="Open it with the key that began it, or begin a new log in another folder.",
        )


def _last_complete(lines: Iterable[bytes]) -> tuple[bytes, int]:
    """The last line that has its newline, and the bytes up to its end."""
    last, size = b"", 0
    for line in lines:
        if line.endswith(b"\n"):
            last, size = line, size + len(line)
    return last, size
