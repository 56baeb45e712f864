"""What can go wrong with the child that reads a bundle. The family is `PolicyError`."""

from __future__ import annotations

from ringfence.errors import Code, Kind

CHILD_DIED = Code("policy.child_died", Kind.UNPROCESSABLE)
CHILD_LATE = Code("policy.child_late", Kind.DEADLINE)
CHILD_LIED = Code("policy.child_lied", Kind.INTERNAL)
