"""The gate: runs a pipeline's decision, makes its record durable, and only then lets anything go.

This is the thin shell that every host adapter shares; it knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from ringfence.agent.api.jobs import JobStatement
from ringfence.agent.api.remote import Finished
from ringfence.crypto import Signer
from ringfence.crypto.combiner import Bound
from ringfence.errors import RingfenceError
from ringfence.plugin.api import REQUEST_KEY, JobAnswer, SessionParameters
from ringfence.plugin.hosts.port import NO_CHANNEL, Channel, Inbound
from ringfence.plugin.identity.assembly import Identified
from ringfence.plugin.identity.port import Binding, Proven
from ringfence.plugin.link import LINK_LOST, HostLink
from ringfence.plugin.pipeline.demands import Granted
from ringfence.plugin.pipeline.factors import Begun, FactorPipeline
from ringfence.plugin.pipeline.facts import live_factors
from ringfence.plugin.pipeline.opening import OpeningPipeline
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.running import Running
from ringfence.plugin.sessions.port import SessionStore
from ringfence.plugin.sessions.revocations import Revocations
from ringfence.plugin.settling import RefusedError, Settlement, opened_record, with_audit

Prove = Callable[[Mapping[str, bytes], Binding, int], Awaitable[Identified]]
"""What pieces of evidence prove of a session's principal. Raises `IdentityError`."""


class Gate:
    """Opens sessions and forwards jobs for one host."""

    def __init__(
        self,
        *,
        signer: Signer,
        opening: OpeningPipeline,
        requests: RequestPipeline[JobStatement, Granted],
        factors: FactorPipeline,
        prove: Prove,
        sessions: SessionStore,
        revocations: Revocations,
        link: HostLink,
        settlement: Settlement,
        running: Running,
        job_timeout_s: float,
        clock_ns: Callable[[], int],
    ) -> None:
        self._signer = signer
        self._opening = opening
        self._requests = requests
        self._factors = factors
        self._prove = prove
        self._sessions = sessions
        self._revocations = revocations
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
            await self._settlement.record(opened_record(session))
            # Its principal may have been revoked while it was opened.
            self._revocations.check(session)
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

    async def add_factors(self, inbound: Inbound) -> tuple[str, ...]:
        """Adds what the evidence in the request's body proves to its session; the session's factors then.

        Raises `RefusedError`.
        """
        begun = self._factors.begin(inbound, now=self._now())
        proven: tuple[Proven, ...] | RingfenceError = ()
        if isinstance(begun, Begun):
            evidence = begun.evidence
            try:
                proven = (await self._prove(evidence.pieces, evidence.binding, self._now())).proven
            except RingfenceError as error:
                proven = error
            decided = self._factors.finish(begun, proven, now=self._now())
        else:
            decided = begun
        session, waited = await self._settlement.settle(decided, inbound.source)
        now = self._now()
        try:
            kept = self._factors.keep(session.name, () if isinstance(proven, RingfenceError) else proven, now=now)
        except RingfenceError as error:
            raise RefusedError(error, decided.record.decision_id, with_audit(decided, waited)) from error
        return live_factors(kept, now)

    async def _forward(self, granted: Granted, inbound: Inbound) -> Finished:
        body = inbound.body if isinstance(inbound.body, bytes) else b""
        remote = self._link.remote
        return await remote.submit(granted.channel, granted.encoded, granted.tag, body, timeout_s=self._job_timeout_s)

    def _now(self) -> int:
        return self._clock_ns() // 1_000_000_000
