"""The pipeline of a request in a session: session, signature, integrity, device trust, risk, policy, grant. No I/O.

The caller of this pipeline makes the decision's record durable before it lets what was granted go. It may `screen` a
request by its header fields before it reads the body; the decision still begins with the first stage, because session
and signature may have ended while the body came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ringfence.errors import RingfenceError
from ringfence.plugin.errors import GateError
from ringfence.plugin.host import Attested, Host
from ringfence.plugin.hosts.port import Inbound
from ringfence.plugin.pipeline.demands import Demand
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.entry import Entry
from ringfence.plugin.pipeline.facts import common_facts, live_factors
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.stages import (
    apply_policy,
    assess,
    key_bound,
    permitted_still,
    same_device,
    sight,
    trust_device,
)
from ringfence.plugin.sessions.port import Ended, Session

Ask = TypeVar("Ask")
Outcome = TypeVar("Outcome")
Value = TypeVar("Value")


class RequestPipeline(Generic[Ask, Outcome]):
    """Decides whether a request may go on to what it demands."""

    def __init__(self, means: Means, demand: Demand[Ask, Outcome]) -> None:
        self._means = means
        self._demand = demand
        self._action = demand.action.value
        self._entry = Entry(means)

    def screen(self, inbound: Inbound, host: Host, *, now: int) -> Decided[Session]:
        """The decision as far as the header allows one: a denial is final, and nothing is spent."""
        return self._decide(inbound, host, now, lambda docket: self._entry.authenticate(docket, inbound, now)[0])

    def decide(self, inbound: Inbound, host: Host, *, now: int) -> Decided[Outcome]:
        """The decision on one request."""
        decided = self._decide(inbound, host, now, lambda docket: self._stages(docket, inbound, host, now))
        if not isinstance(decided.ruling, RingfenceError):
            sight(self._means, decided, now)
        return decided

    def _decide(self, inbound: Inbound, host: Host, now: int, stages: Callable[[Docket], Value]) -> Decided[Value]:
        means = self._means
        docket = Docket(
            means.random(16).hex(),
            "request",
            means.ticks_ns,
            action=self._action,
            resource=self._demand.resource(host),
            source=inbound.source,
            bundle_digest=means.decider.bundle_digest,
        )
        decided = docket.decide(lambda: stages(docket))
        if decided.blames_caller:
            means.risk.refused(docket.principal or inbound.source, authenticated=bool(docket.principal), now=now)
            sight(means, decided, now)
        return decided

    def _stages(self, docket: Docket, inbound: Inbound, host: Host, now: int) -> Outcome:
        means, demand = self._means, self._demand
        session, presented = self._entry.authenticate(docket, inbound, now)
        shown = self._entry.accept(docket, inbound, session, presented, delegated=demand.verifies_body, now=now)
        docket.begin("device_trust")
        attested = self._trust_device(session, host, now)
        # The session is bound to the result it was opened with; the host's latest one must still agree with it.
        docket.attestation_digest = session.attestation_digest
        docket.begin("risk")
        activity = assess(means, docket, size=shown.size, drift=attested.trust.drift, now=now)
        docket.begin("policy")
        factors = live_factors(session, now)
        key_bound(session, factors)
        common = common_facts(
            attested, session, factors, activity, now=now, source=inbound.source, tenant=demand.tenant
        )
        if session.bundle_digest != docket.bundle_digest:
            session = permitted_still(means, session, common)
        query, ask = demand.query(shown, session, attested, common, now)
        apply_policy(means.decider, docket, query)
        docket.begin("grant")
        means.sessions.touch(session.name, now=now)
        return demand.grant(docket, shown, session, factors, attested, ask, now)

    def _trust_device(self, session: Session, host: Host, now: int) -> Attested:
        attested = trust_device(host, now=now)
        try:
            return same_device(attested, agent=session.host, status=session.status)
        except GateError:
            # It does not come back to life when the host does.
            self._means.sessions.retire(session.name, Ended.TRUST)
            raise
