"""The lines of an audit log, for a replay; checked first where its owner's key is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ringfence.audit.checkpoint import Keys
from ringfence.audit.errors import UNSIGNED, AuditError
from ringfence.audit.files import read_blocks
from ringfence.audit.folder import read_layout
from ringfence.audit.reading import logs_in
from ringfence.audit.segments import records_name
from ringfence.audit.verifier import verify_log
from ringfence.crypto import COMPOSITE


def log_lines(folder: Path) -> Iterator[bytes]:
    """Every line of a log, or of each log in a folder, without the first of each segment, which is no record.

    Raises `AuditError` (audit.not_found, audit.wrong_layout).
    """
    for log in logs_in(folder):
        for first in read_layout(log).records:
            header = True
            for lines, _ in read_blocks(log / records_name(first)):
                yield from lines[1:] if header else lines
                header = False


def check_logs(folder: Path, public: bytes) -> None:
    """Check each log in a folder with its owner's ML-DSA-65-Ed25519 key. Raises `AuditError` for one that fails."""
    for log in logs_in(folder):
        layout = read_layout(log)
        report = verify_log(layout.pieces(), layout.notes(layout.note_sizes()), Keys(public, COMPOSITE.verify))
        if report.error is not None:
            raise report.error
        if report.records and not report.checkpoints:
            raise AuditError(
                UNSIGNED,
                "No checkpoint covers any of its records, so nothing in it was checked against a key.",
                field=str(log),
                hint="`ringfence audit verify` says more.",
            )
