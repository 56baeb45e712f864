"""Error codes of sessions beyond those of the stages: how they end early, what is kept of them, and their desk."""

from __future__ import annotations

from typing import Final

from ringfence.errors import Code, Kind

SESSION_IDLE: Final = Code("session.idle", Kind.UNAUTHENTICATED)
SESSION_REVOKED: Final = Code("session.revoked", Kind.UNAUTHENTICATED)
ENDINGS_CAPACITY: Final = Code("session.endings_capacity", Kind.EXHAUSTED)
REVOCATION_CAPACITY: Final = Code("session.revocation_capacity", Kind.EXHAUSTED)
SNAPSHOT_REFUSED: Final = Code("session.snapshot_refused", Kind.DENIED)
SNAPSHOT_FAILED: Final = Code("session.snapshot_failed", Kind.UNAVAILABLE)
PRINCIPAL_UNKNOWN: Final = Code("session.principal_unknown", Kind.NOT_FOUND)
DESK_MALFORMED: Final = Code("session.desk_malformed", Kind.INVALID)
DESK_REFUSED: Final = Code("session.desk_refused", Kind.DENIED)
DESK_UNAVAILABLE: Final = Code("session.desk_unavailable", Kind.UNAVAILABLE)
