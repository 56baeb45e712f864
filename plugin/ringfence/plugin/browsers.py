"""Browsers' sessions, as signing in opens and ends them: decided, recorded, and in the store."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from ringfence import audit
from ringfence.errors import RingfenceError
from ringfence.plugin.errors import GateError
from ringfence.plugin.identity.port import Proven
from ringfence.plugin.link import HostLink
from ringfence.plugin.pipeline.browsing import BrowsingPipeline
from ringfence.plugin.pipeline.cookies import session_token, split
from ringfence.plugin.sessions.port import Ended, SessionStore
from ringfence.plugin.sessions.revocations import Revocations, closed_record
from ringfence.plugin.settling import RefusedError, Settlement, opened_record

SOURCE = "browser"


class Browsers:
    """Opens and ends browsers' sessions in the one store of the gateway."""

    def __init__(
        self,
        *,
        pipeline: BrowsingPipeline,
        link: HostLink,
        sessions: SessionStore,
        revocations: Revocations,
        settlement: Settlement,
        clock: Callable[[], int],
    ) -> None:
        self._pipeline = pipeline
        self._link = link
        self._sessions = sessions
        self._revocations = revocations
        self._settlement = settlement
        self._clock = clock

    async def open(self, proven: Proven, factors: tuple[tuple[str, int], ...]) -> str:
        """A new session for who has signed in, and the value of its cookie. Raises `RingfenceError`."""
        del factors
        host = await self._link.host()
        decided = self._pipeline.decide(proven, host, source=SOURCE, now=self._clock())
        try:
            session, _ = await self._settlement.settle(decided, SOURCE)
        except RefusedError as refused:
            raise refused.error from refused
        await self._settlement.record(opened_record(session))
        self._revocations.check(session)
        self._sessions.add(session, now=self._clock())
        return f"{session.name}.{session_token(session.key)}"

    async def end(self, cookie: str) -> None:
        """Ends the session with that cookie; nothing where there is none."""
        try:
            name, token = split(cookie)
            session = self._sessions.find(name, now=self._clock())
        except GateError:
            return
        if hmac.compare_digest(token, session_token(session.key)):
            self._sessions.end(name, Ended.CLOSED)
            try:
                await self._settlement.record(closed_record(session, Ended.CLOSED))
            except audit.AuditError as error:
                raise RingfenceError(error.code, error.message, hint=error.hint) from error
