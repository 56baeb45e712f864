"""Questions to the policies over AuthZEN: decided by what runs in the gateway, and recorded as every decision is.

A subject is a `client`, by the name of its pin or its key; a resource is an `upstream` by its configured name, or the
`host` by its agent's key; an action is one of the policies' schema. What whoever asks says of their properties is not
used: groups, tenants and attributes are the gateway's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ringfence.errors import RingfenceError
from ringfence.httpsig import Target
from ringfence.plugin.errors import StepUpError
from ringfence.plugin.host import Attested, Host
from ringfence.plugin.hosts.authzen.port import Decision, Entity, Question
from ringfence.plugin.hosts.port import Unseen
from ringfence.plugin.pipeline.demands import AccessDemand, Upstream
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.facts import Activity, Common, common_facts
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.shown import Shown
from ringfence.plugin.pipeline.stages import apply_policy, key_bound, trust_device
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.settling import RefusedError, Settlement
from ringfence.plugin.stated import Stated, StatedAccess, StatedJob, read
from ringfence.plugin.threats.detector import admit
from ringfence.policies import Action, JobContext, PolicyError, Query, SessionContext
from ringfence.policies.errors import BAD_QUERY
from ringfence.trust import Pin, Role

CLIENT: Final = "client"
UPSTREAM: Final = "upstream"
HOST: Final = "host"
SOURCE: Final = "authzen"
_ACTIONS: Final = {action.value: action for action in Action}
_STATED: Final[Mapping[Action, type[Stated]]] = {
    Action.OPEN_SESSION: Stated,
    Action.ACCESS: StatedAccess,
    Action.SUBMIT_JOB: StatedJob,
}


@dataclass(frozen=True, slots=True)
class _Known:
    """A question about what the gateway knows."""

    pin: Pin
    action: Action
    resource: str


class PolicyEvaluator:
    """Answers by the policies in force, for a caller who is trusted to state subject and context truthfully."""

    def __init__(
        self,
        means: Means,
        settlement: Settlement,
        upstreams: Mapping[str, Upstream],
        *,
        keys: Callable[[str], tuple[str, ...]],
        host: Callable[[], Awaitable[Host]],
        clock: Callable[[], int],
    ) -> None:
        """`keys` gives the keys of a client by its name; `clock` seconds since the epoch."""
        self._means = means
        self._settlement = settlement
        self._demands = {name: AccessDemand(upstream) for name, upstream in upstreams.items()}
        self._keys = keys
        self._host = host
        self._clock = clock

    async def evaluate(self, question: Question) -> Decision:
        """The decision, once its record is durable. Raises `RingfenceError` where it cannot be recorded."""
        host = await self._host()
        decided = self.decide(question, host, now=self._clock())
        try:
            await self._settlement.settle(decided, SOURCE)
        except RefusedError as refused:
            if refused.error is not decided.ruling:
                raise refused.error from refused
            return Decision(False, _why(refused.error, decided))
        return Decision(True, {"decision_id": decided.record.decision_id})

    def decide(self, question: Question, host: Host, *, now: int) -> Decided[None]:
        """The decision on one question."""
        means = self._means
        docket = Docket(
            means.random(16).hex(),
            "question",
            means.ticks_ns,
            action="",
            resource="",
            source=SOURCE,
            bundle_digest=means.decider.bundle_digest,
        )
        return docket.decide(lambda: self._stages(docket, question, host, now))

    def _stages(self, docket: Docket, question: Question, host: Host, now: int) -> None:
        means = self._means
        docket.begin("parse")
        known = self._look_up(question, host, now)
        docket.principal, docket.action, docket.resource = known.pin.key_id, known.action.value, known.resource
        stated = read(question.context, _STATED[known.action])
        docket.begin("device_trust")
        attested = trust_device(host, now=now)
        docket.attestation_digest = attested.digest
        docket.begin("risk")
        admit(means.threats.standing(source="", principal=known.pin.key_id, now=now), now=now)
        docket.begin("policy")
        session = self._session(known.pin, attested, stated, now)
        factors = tuple(sorted(set(stated.factors)))
        key_bound(session, factors)
        apply_policy(means.decider, docket, self._query(known, session, attested, stated, factors, now))

    def _look_up(self, question: Question, host: Host, now: int) -> _Known:
        action = _ACTIONS.get(question.action.name)
        kind = UPSTREAM if action is Action.ACCESS else HOST
        names = self._demands if kind == UPSTREAM else (host.agent,)
        if action is None or question.resource.type != kind or question.resource.id not in names:
            raise _unknown("action on a resource", "resource")
        if question.subject.type != CLIENT:
            raise _unknown("subject", "subject")
        return _Known(self._pin(question.subject, now), action, question.resource.id)

    def _pin(self, subject: Entity, now: int) -> Pin:
        try:
            # The newest, while a client changes from one key to the other.
            return self._means.trust().find(Role.CLIENT, self._keys(subject.id)[-1], now)
        except RingfenceError:
            raise _unknown("subject", "subject") from None

    def _session(self, pin: Pin, host: Attested, stated: Stated, now: int) -> Session:
        """The session that the question speaks of, as if it had been opened here."""
        known = self._means.directory(pin.key_id, now)
        return Session(
            name="",
            principal=pin.key_id,
            groups=tuple(sorted({*pin.groups, *known.groups})),
            host=host.agent,
            status=host.trust.status.value,
            attestation_digest=host.digest,
            bundle_digest=self._means.decider.bundle_digest,
            opened_at=max(0, now - stated.session_age_s),
            expires_at=0,
            idle_s=0,
            key=b"",
            thumbprint="stated" if stated.channel_bound else "",
            tenant=known.tenant,
            attributes=known.attributes,
            directory_at=known.fetched_at,
            source=stated.source,
        )

    def _query(
        self, known: _Known, session: Session, host: Attested, stated: Stated, factors: tuple[str, ...], now: int
    ) -> Query:
        means, principal = self._means, session.principal
        activity = Activity(
            stated.risk,
            means.risk.requests_minute(principal, now=now),
            means.running(principal),
            means.approvals(principal, now),
        )

        def common(tenant: str = "") -> Common:
            return common_facts(host, session, factors, activity, now=now, source=stated.source, tenant=tenant)

        if isinstance(stated, StatedAccess):
            demand = self._demands[known.resource]
            return demand.query(_shown(stated, demand.verifies_body), session, host, common(demand.tenant), now)[0]
        context = _job(stated, common()) if isinstance(stated, StatedJob) else SessionContext(*common())
        return Query(principal, session.groups, known.action, known.resource, context)


class KnownEntities:
    """What a search may find: the pinned clients by name, the upstreams, the host, and the schema's actions."""

    def __init__(
        self, means: Means, upstreams: Mapping[str, Upstream], *, agent: str, clock: Callable[[], int]
    ) -> None:
        self._means = means
        self._resources = {UPSTREAM: tuple(sorted(upstreams)), HOST: (agent,)}
        self._clock = clock

    def subjects(self, kind: str) -> Sequence[str]:
        """The names of the clients that are pinned now, sorted."""
        if kind != CLIENT:
            return ()
        return sorted({pin.name for pin in self._means.trust().by_role(Role.CLIENT, self._clock())})

    def resources(self, kind: str) -> Sequence[str]:
        """The upstreams' names, sorted, or the host."""
        return self._resources.get(kind, ())

    def actions(self) -> Sequence[str]:
        """The names of the schema's actions, sorted."""
        return sorted(_ACTIONS)


def _shown(stated: StatedAccess, verifies_body: bool) -> Shown:
    query = f"?{stated.query}"
    target = Target(stated.method, stated.authority, stated.path, query)
    return Shown(target, Unseen.HIDDEN, stated.body_verified or verifies_body, stated.body_bytes, b"")


def _job(stated: StatedJob, common: Common) -> JobContext:
    return JobContext(
        *common,
        stated.body_verified,
        stated.body_bytes,
        stated.memory_bytes,
        stated.gpu_memory_bytes,
        stated.deadline_ms,
        stated.output_bytes,
        stated.qubits,
        stated.compute_units,
        stated.qubits > 0,
        stated.level,
        stated.result,
        stated.module_digest,
        (),
    )


def _why(error: RingfenceError, decided: Decided[None]) -> dict[str, Any]:
    why: dict[str, Any] = {"decision_id": decided.record.decision_id, "code": error.code.name, "reason": error.message}
    if decided.record.policies:
        why["policies"] = list(decided.record.policies)
    if isinstance(error, StepUpError):
        why["missing"] = list(error.missing)
    return why


def _unknown(what: str, field: str) -> PolicyError:
    return PolicyError(
        BAD_QUERY,
        f"The gateway knows no such {what}.",
        field=field,
        hint="Ask for what the searches of this API find.",
    )
