"""Revokes sessions: ends them at once, makes that durable, and only then says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from ringfence.audit import Record
from ringfence.plugin.sessions.ending import SlicedStore
from ringfence.plugin.sessions.port import Ended, Session
from ringfence.plugin.sessions.revocations import Of, Revocation, Revocations

_PLACES: Final = 256


class Revoker:
    """Carries revocations out over a store, in steps between which requests are decided.

    `ended` is told of each session that ends, so that its streams end too; `journal` returns once its record is
    durable.
    """

    def __init__(
        self,
        store: SlicedStore,
        revocations: Revocations,
        *,
        journal: Callable[[Record], Awaitable[None]],
        ended: Callable[[Session], None],
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._revocations = revocations
        self._journal = journal
        self._ended = ended
        self._now = now

    async def revoke(self, of: Of, value: str) -> int:
        """How many live sessions have ended, once the revocation is durable.

        The sessions end first: where the log fails, they have ended all the same, and whoever asked learns that it may
        not outlive a restart. Raises `session.revocation_capacity` and what the journal raises.
        """
        now = self._now()
        revocation = Revocation(of, value, now)
        self._revocations.add(revocation, now=now)
        count, start = 0, 0
        while start >= 0:
            found, start = self._store.scan((revocation.selection,), start, _PLACES)
            for session in found:
                # One that was opened later than now was opened before the clock went back.
                if revocation.covers(session) or session.opened_at > self._now():
                    revocation = replace(revocation, at=max(revocation.at, session.opened_at))
                    self._store.end(session.name, Ended.REVOKED)
                    self._ended(session)
                    count += 1
            await asyncio.sleep(0)
        await self._journal(revocation.record())
        return count
