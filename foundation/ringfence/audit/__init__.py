"""The audit log: append-only, hash-chained, with a Merkle tree, signed checkpoints and an offline verifier.

`records` documents the line format, `segments` the files, `checkpoint` the signed bytes, `verifier` what a check proves
and what it cannot; `docs/audit-log.md` has them together.
"""

from __future__ import annotations

from ringfence.audit.anchor import Anchor
from ringfence.audit.checkpoint import Checkpoint, Keys, Signer
from ringfence.audit.commit import Ticket
from ringfence.audit.errors import AuditError
from ringfence.audit.files import FilePort, OsFiles
from ringfence.audit.kinds import (
    Alert,
    Asked,
    Attestation,
    Decision,
    Job,
    JobLimits,
    Operator,
    Pool,
    Record,
    Session,
    Stage,
    Suppression,
    Threat,
)
from ringfence.audit.log import AuditLog
from ringfence.audit.notes import Verify
from ringfence.audit.records import Entry
from ringfence.audit.settings import Settings
from ringfence.audit.verifier import Report, verify_log

__all__ = [
    "Alert",
    "Anchor",
    "Asked",
    "Attestation",
    "AuditError",
    "AuditLog",
    "Checkpoint",
    "Decision",
    "Entry",
    "FilePort",
    "Job",
    "JobLimits",
    "Keys",
    "Operator",
    "OsFiles",
    "Pool",
    "Record",
    "Report",
    "Session",
    "Settings",
    "Signer",
    "Stage",
    "Suppression",
    "Threat",
    "Ticket",
    "Verify",
    "verify_log",
]
