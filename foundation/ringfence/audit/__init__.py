"""The audit log: append-only, hash-chained, with signed checkpoints and an offline verifier.

`records` documents the line format, `checkpoint` the signed bytes, `verifier` what a check proves and what it cannot.
"""

from __future__ import annotations

from ringfence.audit.checkpoint import Checkpoint, Signer, Verify
from ringfence.audit.commit import Ticket
from ringfence.audit.errors import AuditError
from ringfence.audit.files import FilePort, OsFiles
from ringfence.audit.log import AuditLog
from ringfence.audit.records import (
    Attestation,
    Decision,
    Entry,
    Job,
    JobLimits,
    Operator,
    Record,
    Session,
    Stage,
    Suppression,
)
from ringfence.audit.verifier import Report, verify_log

__all__ = [
    "Attestation",
    "AuditError",
    "AuditLog",
    "Checkpoint",
    "Decision",
    "Entry",
    "FilePort",
    "Job",
    "JobLimits",
    "Operator",
    "OsFiles",
    "Record",
    "Report",
    "Session",
    "Signer",
    "Stage",
    "Suppression",
    "Ticket",
    "Verify",
    "verify_log",
]
