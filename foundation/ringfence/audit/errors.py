"""The failures of the audit log, each with its stable code."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError

UNAVAILABLE = Code("audit.unavailable", Kind.UNAVAILABLE)
CLOSED = Code("audit.closed", Kind.UNAVAILABLE)
NEEDS_OPERATOR = Code("audit.needs_operator", Kind.UNAVAILABLE)
TIMEOUT = Code("audit.timeout", Kind.DEADLINE)
LOCKED = Code("audit.locked", Kind.CONFLICT)
CORRUPT = Code("audit.corrupt", Kind.INTERNAL)
FORGED_CHECKPOINT = Code("audit.forged_checkpoint", Kind.INTERNAL)
ROLLED_BACK = Code("audit.rolled_back", Kind.INTERNAL)
UNSIGNED = Code("audit.unsigned", Kind.UNPROCESSABLE)
UNPROVABLE = Code("audit.unprovable", Kind.UNPROCESSABLE)
BAD_PROOF = Code("audit.bad_proof", Kind.UNPROCESSABLE)
WRONG_KEY = Code("audit.wrong_key", Kind.CONFLICT)
WRONG_LAYOUT = Code("audit.wrong_layout", Kind.CONFLICT)
BAD_RECORD = Code("audit.bad_record", Kind.INVALID)
BAD_KEY_FILE = Code("audit.bad_key_file", Kind.INVALID)
BAD_NOTE = Code("audit.bad_note", Kind.INVALID)
NOT_FOUND = Code("audit.not_found", Kind.NOT_FOUND)


class AuditError(RingfenceError):
    """The audit log could not take, keep or prove a record. Whoever meets it while deciding must deny."""
