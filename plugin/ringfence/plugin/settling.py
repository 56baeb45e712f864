"""Settling a decision: its record is durable before anything leaves, and refusals of strangers are bounded.

This is the thin shell around both pipelines; it knows nothing of HTTP or of any host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ringfence import audit
from ringfence.agent.api.remote import Finished
from ringfence.audit.kinds import Record
from ringfence.errors import RingfenceError
from ringfence.plugin.api import StageView
from ringfence.plugin.errors import TOO_MANY_REFUSALS, GateError
from ringfence.plugin.pipeline.docket import Decided
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.strangers import StrangerLimit

Outcome = TypeVar("Outcome")


class RefusedError(Exception):
    """A refusal as it leaves: the error, and the decision it came from; `finished` where the agent had admitted."""

    def __init__(
        self,
        error: RingfenceError,
        decision_id: str = "",
        trace: tuple[StageView, ...] = (),
        finished: Finished | None = None,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.decision_id = decision_id
        self.trace = trace
        self.finished = finished


class Settlement:
    """Makes decisions durable in one log. `tell` hears each record that is durable; it must not wait."""

    def __init__(
        self,
        log: audit.AuditLog,
        strangers: StrangerLimit,
        *,
        ticks_ns: Callable[[], int],
        tell: Callable[[Record], None],
    ) -> None:
        self._log = log
        self._strangers = strangers
        self._ticks_ns = ticks_ns
        self._tell = tell

    async def settle(self, decided: Decided[Outcome], source: str) -> tuple[Outcome, int]:
        """What was decided, once its record is durable, and how long that took in microseconds.

        Raises `RefusedError` for a denial, and where the log fails: what cannot be recorded is denied.
        """
        if isinstance(decided.ruling, RingfenceError) and not decided.record.principal:
            try:
                self._strangers.refuse(source, decided.ruling.code)
            except GateError as error:
                raise RefusedError(error) from decided.ruling
        started = self._ticks_ns()
        try:
            await self.record(decided.record)
        except audit.AuditError as error:
            view = StageView("audit", "deny", error.code.name, self._since(started))
            raise RefusedError(error, decided.record.decision_id, (*decided.trace, view)) from error
        waited = self._since(started)
        if isinstance(decided.ruling, RingfenceError):
            raise RefusedError(decided.ruling, decided.record.decision_id, with_audit(decided, waited))
        return decided.ruling, waited

    async def record(self, record: Record) -> None:
        """Makes one record durable. Raises `AuditError`, at once where too many wait for the disk.

        Waiting for room would hold up the whole event loop: whoever fills the log would stop all decisions, and the
        revocations with them.
        """
        await self._log.durable(self._log.append(record, timeout_s=0.0))
        self._tell(record)

    async def report_suppressed(self) -> None:
        """Records how many refusals of strangers had no record of their own, and lets each source have some again.

        To be called every `strangers.WINDOW_S` and at the end. Raises `AuditError`; a count stays until it is recorded.
        """
        for source, count in self._strangers.suppressed():
            await self.record(audit.Suppression(code=TOO_MANY_REFUSALS.name, source=source, refusals=count))
            self._strangers.reported(source, count)
        self._strangers.turn()

    def _since(self, started: int) -> int:
        return (self._ticks_ns() - started) // 1000


def opened_record(session: Session) -> audit.Session:
    """The record of a session that opens."""
    return audit.Session(
        event="opened",
        session=session.name,
        principal=session.principal,
        agent_key_id=session.host,
        attestation_digest=session.attestation_digest,
        bundle_digest=session.bundle_digest,
        expires_at=session.expires_at,
    )


def with_audit(decided: Decided[Outcome], waited_us: int) -> tuple[StageView, ...]:
    """The trace of a settled decision, with the wait for its record as its last stage."""
    return (*decided.trace, StageView("audit", "allow", "", waited_us))
