"""The gate: runs a pipeline's decision, makes its record durable, and only then lets anything go.

This is the thin shell that every host adapter shares; it knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ringfence import audit
from ringfence.agent.api.jobs import JobStatement
from ringfence.agent.api.remote import Finished
from ringfence.crypto import Signer
from ringfence.crypto.combiner import Bound
from ringfence.errors import RingfenceError
from ringfence.plugin.api import REQUEST_KEY, JobAnswer, SessionParameters
from ringfence.plugin.hosts.port import NO_CHANNEL, Channel, Inbound
from ringfence.plugin.link import LINK_LOST, HostLink
from ringfence.plugin.pipeline.demands import Granted
from ringfence.plugin.pipeline.opening import OpeningPipeline
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.running import Running
from ringfence.plugin.sessions.port import Session, SessionStore
from ringfence.plugin.settling import RefusedError, Settlement, with_audit


class Gate:
    """Opens sessions and forwards jobs for one host."""

    def __init__(
        self,
        *,
        signer: Signer,
        opening: OpeningPipeline,
        requests: RequestPipeline[JobStatement, Granted],
        sessions: SessionStore,
        link: HostLink,
        settlement: Settlement,
        running: Running,
        job_timeout_s: float,
        clock_ns: Callable[[], int],
    ) -> None:
        self._signer = signer
        self._opening = opening
        self._requests = requests
        self._sessions = sessions
        self._link = link
        self._settlement = settlement
        self._running = running
        self._job_timeout_s = job_timeout_s
        self._clock_ns = clock_ns

    async def open_session(self, message: bytes, *, source: str, channel: Channel = NO_CHANNEL) -> bytes:
        """The handshake's reply to a hello. Raises `RefusedError`."""
        host = await self._link.host()
        decided = self._opening.decide(message, host, source=source, now=self._now(), channel=channel)
        opening, waited = await self._settlement.settle(decided, source)
        trace = with_audit(decided, waited)
        try:
            proof = await self._link.prove_host(opening.host, opening.responder.nonce)
        except RingfenceError as error:
            raise RefusedError(error, decided.record.decision_id, trace) from error
        parameters = SessionParameters(
            attestation=opening.host.token,
            host_proof=proof,
            bundle_digest=opening.session.bundle_digest,
            decision_id=decided.record.decision_id,
            trace=trace,
        )
        bound = Bound(attestation=opening.host.digest, policies=opening.session.bundle_digest)
        reply, established = opening.responder.finish(self._signer, msgspec.msgpack.encode(parameters), bound)
        session = msgspec.structs.replace(opening.session, key=established.key(REQUEST_KEY))
        try:
            await self._record_opening(session)
            self._sessions.add(session, now=self._now())
        except RingfenceError as error:
            raise RefusedError(error, decided.record.decision_id, trace) from error
        return reply

    async def screen(self, inbound: Inbound) -> None:
        """Refuses a job that its header does not authenticate, so that its body need not be read.

        Raises `RefusedError`. Who passes has still to be decided on, by `submit`.
        """
        decided = self._requests.screen(inbound, await self._link.host(), now=self._now())
        if isinstance(decided.ruling, RingfenceError):
            await self._settlement.settle(decided, inbound.source)

    async def submit(self, inbound: Inbound) -> JobAnswer:
        """Forwards a job and waits for it. Raises `RefusedError`, with the receipt where the agent had admitted it."""
        host = await self._link.host()
        decided = self._requests.decide(inbound, host, now=self._now())
        granted, waited = await self._settlement.settle(decided, inbound.source)
        trace = with_audit(decided, waited)
        decision_id = decided.record.decision_id
        try:
            with self._running.one(granted.grant.principal):
                finished = await self._forward(granted, inbound)
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

    async def _forward(self, granted: Granted, inbound: Inbound) -> Finished:
        body = inbound.body if isinstance(inbound.body, bytes) else b""
        remote = self._link.remote
        return await remote.submit(granted.channel, granted.encoded, granted.tag, body, timeout_s=self._job_timeout_s)

    async def _record_opening(self, session: Session) -> None:
        record = audit.Session(
            event="opened",
            session=session.name,
            principal=session.principal,
            agent_key_id=session.host,
            attestation_digest=session.attestation_digest,
            bundle_digest=session.bundle_digest,
            expires_at=session.expires_at,
        )
        await self._settlement.record(record)

    def _now(self) -> int:
        return self._clock_ns() // 1_000_000_000
