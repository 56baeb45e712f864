"""The gate: runs a pipeline's decision, makes its record durable, and only then lets anything go.

This is the thin shell that every host adapter shares; it knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from ringfence import audit
from ringfence.agent.api.remote import Finished
from ringfence.crypto import Signer
from ringfence.crypto.combiner import Bound
from ringfence.errors import RingfenceError
from ringfence.plugin.api import REQUEST_KEY, JobAnswer, SessionParameters, StageView
from ringfence.plugin.errors import TOO_MANY_REFUSALS, GateError
from ringfence.plugin.link import LINK_LOST, HostLink
from ringfence.plugin.pipeline.docket import Decided
from ringfence.plugin.pipeline.opening import OpeningPipeline
from ringfence.plugin.pipeline.requests import Granted, Head, Request, RequestPipeline
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.sessions.store import MemorySessions
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


class Gate:
    """Opens sessions and forwards jobs for one host."""

    def __init__(
        self,
        *,
        signer: Signer,
        opening: OpeningPipeline,
        requests: RequestPipeline,
        sessions: MemorySessions,
        strangers: StrangerLimit,
        link: HostLink,
        log: audit.AuditLog,
        bundle_digest: str,
        job_timeout_s: float,
        clock_ns: Callable[[], int],
        ticks_ns: Callable[[], int],
    ) -> None:
        self._signer = signer
        self._opening = opening
        self._requests = requests
        self._sessions = sessions
        self._strangers = strangers
        self._link = link
        self._log = log
        self._bundle_digest = bundle_digest
        self._job_timeout_s = job_timeout_s
        self._clock_ns = clock_ns
        self._ticks_ns = ticks_ns

    async def open_session(self, message: bytes, *, source: str) -> bytes:
        """The handshake's reply to a hello. Raises `RefusedError`."""
        host = await self._link.host()
        decided = self._opening.decide(message, host, source=source, now=self._now())
        opening, trace = await self._settle(decided, source)
        try:
            proof = await self._link.prove_host(opening.host, opening.responder.nonce)
        except RingfenceError as error:
            raise RefusedError(error, decided.record.decision_id, trace) from error
        parameters = SessionParameters(
            attestation=opening.host.token,
            host_proof=proof,
            bundle_digest=self._bundle_digest,
            decision_id=decided.record.decision_id,
            trace=trace,
        )
        bound = Bound(attestation=opening.host.digest, policies=self._bundle_digest)
        reply, established = opening.responder.finish(self._signer, msgspec.msgpack.encode(parameters), bound)
        session = Session(
            name=established.name,
            principal=opening.pin.key_id,
            groups=opening.pin.groups,
            host=opening.host.agent,
            status=opening.host.result.status.value,
            attestation_digest=opening.host.digest,
            bundle_digest=self._bundle_digest,
            opened_at=self._now(),
            expires_at=established.expires_at,
            idle_s=established.expires_at,
            key=established.key(REQUEST_KEY),
        )
        try:
            await self._record_opening(session)
            self._sessions.add(session, now=self._now())
        except RingfenceError as error:
            raise RefusedError(error, decided.record.decision_id, trace) from error
        return reply

    async def screen(self, head: Head) -> None:
        """Refuses a job that its header does not authenticate, so that its body need not be read.

        Raises `RefusedError`. Who passes has still to be decided on, by `submit`.
        """
        decided = self._requests.screen(head, await self._link.host(), now=self._now())
        if isinstance(decided.ruling, RingfenceError):
            await self._settle(decided, head.source)

    async def submit(self, request: Request) -> JobAnswer:
        """Forwards a job and waits for it. Raises `RefusedError`, with the receipt where the agent had admitted it."""
        host = await self._link.host()
        decided = self._requests.decide(request, host, now=self._now())
        granted, trace = await self._settle(decided, request.source)
        decision_id = decided.record.decision_id
        try:
            finished = await self._forward(granted, request.body)
        except RingfenceError as error:
            if error.code.name in LINK_LOST:
                await self._link.renew(host)
            raise RefusedError(error, decision_id, trace) from error
        if finished.failure is not None:
            raise RefusedError(finished.failure, decision_id, trace, finished)
        return JobAnswer(
            output=finished.output,
            receipt=finished.receipt,
            signature=finished.signature,
            decision_id=decision_id,
            grant_id=granted.grant.grant_id,
            limits=granted.grant.limits,
            trace=trace,
        )

    async def _forward(self, granted: Granted, body: bytes) -> Finished:
        remote = self._link.remote
        return await remote.submit(granted.channel, granted.encoded, granted.tag, body, timeout_s=self._job_timeout_s)

    async def report_suppressed(self) -> None:
        """Records how many refusals of strangers had no record of their own, and lets each source have some again.

        To be called every `strangers.WINDOW_S` and at the end. Raises `AuditError`; a count stays until it is recorded.
        """
        for source, count in self._strangers.suppressed():
            record = audit.Suppression(code=TOO_MANY_REFUSALS.name, source=source, refusals=count)
            await self._log.durable(self._log.append(record))
            self._strangers.reported(source, count)
        self._strangers.turn()

    async def _settle(self, decided: Decided[Outcome], source: str) -> tuple[Outcome, tuple[StageView, ...]]:
        if isinstance(decided.ruling, RingfenceError) and not decided.record.principal:
            try:
                self._strangers.refuse(source, decided.ruling.code)
            except GateError as error:
                raise RefusedError(error) from decided.ruling
        started = self._ticks_ns()
        try:
            await self._log.durable(self._log.append(decided.record))
        except audit.AuditError as error:
            view = StageView("audit", "deny", error.code.name, self._since(started))
            raise RefusedError(error, decided.record.decision_id, (*decided.trace, view)) from error
        trace = (*decided.trace, StageView("audit", "allow", "", self._since(started)))
        if isinstance(decided.ruling, RingfenceError):
            raise RefusedError(decided.ruling, decided.record.decision_id, trace)
        return decided.ruling, trace

    async def _record_opening(self, session: Session) -> None:
        record = audit.Session(
            event="opened",
            session=session.name,
            principal=session.principal,
            agent_key_id=session.host,
            attestation_digest=session.attestation_digest,
            bundle_digest=self._bundle_digest,
            expires_at=session.expires_at,
        )
        await self._log.durable(self._log.append(record))

    def _now(self) -> int:
        return self._clock_ns() // 1_000_000_000

    def _since(self, started: int) -> int:
        return (self._ticks_ns() - started) // 1000
