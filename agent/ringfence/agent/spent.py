"""Spent ids: each grant and each job nonce admits once, also across a restart.

In memory only; what makes it durable is the audit log, whose `job` records are replayed into it at the start and
appended (and synced) before a job may run.
"""

from __future__ import annotations

import heapq


class SpentIds:
    """Ids that may not be used again before they expire anyway."""

    def __init__(self) -> None:
        self._expiry: dict[str, int] = {}
        self._queue: list[tuple[int, str]] = []
        self._horizon = 0

    def __len__(self) -> int:
        return len(self._expiry)

    def spend(self, spent_id: str, *, expires_at: int, now: int) -> bool:
        """Marks `spent_id` as used until `expires_at`; false when it was already, or may have been.

        A clock that goes back does not reopen what was forgotten: an id that had expired by the latest time seen here
        counts as used.
        """
        self._forget(now)
        if spent_id in self._expiry or expires_at < self._horizon:
            return False
        self._expiry[spent_id] = expires_at
        heapq.heappush(self._queue, (expires_at, spent_id))
        return True

    def _forget(self, now: int) -> None:
        self._horizon = max(self._horizon, now)
        while self._queue and self._queue[0][0] < self._horizon:
            _, spent_id = heapq.heappop(self._queue)
            del self._expiry[spent_id]
