"""The anchor: a counter outside the log's disk that only counts up, so that a log cut back to an older state is seen.

The port is meant for a TPM's NV counter; its adapter belongs to the attestation part. The protocol costs one increment
for each anchoring, and a crash at any moment leaves a state that is told apart from an attack:

1. the log signs a checkpoint that names the *next* value of the counter, and makes it durable;
2. it increments the counter.

Every checkpoint between two increments names the present value. So the newest checkpoint names the counter's value, or
one more where the machine died between the two steps, and opening the log then makes up for the increment. Less means
that the checkpoints since an increment are gone, whoever cut them. What was logged since the last increment can still
be cut without being seen: the time between two increments is the time an attacker may hide.

A counter belongs to one log, and counts from 0: an adapter over a counter that starts elsewhere subtracts where it
began. So a log that is gone altogether is missed too, unless nothing was ever anchored.
"""

from __future__ import annotations

from typing import Protocol

from ringfence.audit.errors import ROLLED_BACK, AuditError


class Anchor(Protocol):
    """A counter that survives what happens to the disk. Both methods raise a RingfenceError when it is out of reach."""

    def read(self) -> int:
        """How often it was incremented since it was made for this log."""
        ...

    def increment(self) -> int:
        """Counts up by one, durably, and returns the new value."""
        ...


def check_counter(logged: int, counted: int) -> bool:
    """Whether the increment that the newest checkpoint announced is still to be made.

    `logged` is the newest checkpoint's counter, 0 without one; `counted` what the anchor shows. Raises
    AuditError(audit.rolled_back) when checkpoints are missing, or the counter is not the one that belongs to the log.
    """
    if logged < counted:
        raise AuditError(
            ROLLED_BACK,
            f"The anchor's counter shows {counted}, but the newest checkpoint names {logged}: the log was cut back.",
            hint="Keep the folder as it is for an investigation, and start a new log with a new counter.",
        )
    if logged > counted + 1:
        raise AuditError(
            ROLLED_BACK,
            f"The newest checkpoint names the counter value {logged}, but the anchor shows {counted}: it is not the "
            "counter of this log, or it was reset.",
            hint="Give the counter that the log was begun with.",
        )
    return logged == counted + 1
