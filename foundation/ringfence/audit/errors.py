"""The failures of the audit log, each with its stable code."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError

UNAVAILABLE = Code("audit.unavailable", Kind.UNAVAILABLE)
CLOSED = Code("audit.closed", Kind.UNAVAILABLE)
TIMEOUT = Code("audit.timeout", Kind.DEADLINE)
LOCKED = Code("audit.locked", Kind.CONFLICT)
CORRUPT = Code("audit.corrupt", Kind.INTERNAL)
FORGED_CHECKPOINT = Code("audit.forged_checkpoint", Kind.INTERNAL)
UNSIGNED = Code("audit.unsigned", Kind.UNPROCESSABLE)
WRONG_KEY = Code("audit.wrong_key", Kind.CONFLICT)
BAD_RECORD = Code("audit.bad_record", Kind.INVALID)
BAD_KEY_FILE = Code("audit.bad_key_file", Kind.INVALID)
NOT_FOUND = Code("audit.not_found", Kind.NOT_FOUND)


class AuditError(RingfenceError):
    """The audit log could not take, keep or prove a record. Whoever meets it while deciding must deny."""
