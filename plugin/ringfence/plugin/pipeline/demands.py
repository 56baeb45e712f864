"""What a request asks for, a job on the host or an upstream's answer: its query, and what it is given. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from ringfence.agent.api.grants import GRANT_LIFETIME_S, Grant, seal_grant
from ringfence.agent.api.jobs import JobStatement, Level, ResultType, parse_submission
from ringfence.crypto.handshake import Random
from ringfence.plugin.errors import BODY_HIDDEN, JOB_FOREIGN, GateError
from ringfence.plugin.host import Attested, Host
from ringfence.plugin.pipeline.docket import Docket
from ringfence.plugin.pipeline.facts import Common
from ringfence.plugin.pipeline.shown import Shown
from ringfence.plugin.sessions.port import Session
from ringfence.policies import AccessContext, Action, JobContext, Query

Ask = TypeVar("Ask")
Outcome_co = TypeVar("Outcome_co", covariant=True)

# The value of an enumeration's member is a property, which costs more than a look-up.
_LEVELS: Final = {level: level.value for level in Level}
_RESULTS: Final = {result: result.value for result in ResultType}

Signers = Callable[[str, int], tuple[str, ...]]
"""The pinned signers who vouch for the module with a digest in hex at a time in seconds, sorted."""


def no_signers(_digest: str, _now: int) -> tuple[str, ...]:
    """Nobody vouches for any module."""
    return ()


@dataclass(frozen=True, slots=True)
class Granted:
    """A job that may be forwarded, with its grant and the grant's tag."""

    grant: Grant
    channel: str
    encoded: bytes
    tag: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Permitted:
    """A request that an upstream may be given: who asks, and what is asserted about it."""

    session: Session
    factors: tuple[str, ...]
    shown: Shown


@dataclass(frozen=True, slots=True)
class Upstream:
    """What requests may be for: its configured `name`, whose it is (`tenant`), and whether it is one that checks a body
    against the digest in the identity assertion before it acts (`verifies_body`)."""

    name: str
    tenant: str = ""
    verifies_body: bool = False


class Demand(Protocol[Ask, Outcome_co]):
    """What a pipeline's requests ask for."""

    action: Action
    tenant: str
    verifies_body: bool

    def resource(self, host: Host) -> str:
        """What is acted on: a host, or an upstream's name."""
        ...

    def query(self, shown: Shown, session: Session, host: Attested, common: Common, now: int) -> tuple[Query, Ask]:
        """What the policies are asked, from what is common to all actions, and what was read for it."""
        ...

    def grant(
        self,
        docket: Docket,
        shown: Shown,
        session: Session,
        factors: tuple[str, ...],
        host: Attested,
        ask: Ask,
        now: int,
    ) -> Outcome_co:
        """What the caller may have, once the policies permit it."""
        ...


class JobDemand:
    """A job: its limits are in its body, which therefore has to be here."""

    def __init__(self, *, gateway: str, random: Random, signers: Signers = no_signers) -> None:
        self.action = Action.SUBMIT_JOB
        self.tenant = ""
        self.verifies_body = False
        self._gateway = gateway
        self._random = random
        self._signers = signers

    def resource(self, host: Host) -> str:
        """The host."""
        return host.agent

    def query(
        self, shown: Shown, session: Session, host: Attested, common: Common, now: int
    ) -> tuple[Query, JobStatement]:
        """The question, and the job's statement.

        Raises `integrity.body_hidden`, `job.malformed`, `integrity.foreign_job`.
        """
        body = shown.body
        if not isinstance(body, bytes):
            raise GateError(
                BODY_HIDDEN,
                "The job is not here: the gateway in front does not show its body.",
                field="body",
                hint="Send jobs to the built-in gateway, or let the gateway in front buffer the whole body.",
            )
        _, statement = parse_submission(body)
        if statement.principal != session.principal or statement.host != host.agent:
            raise GateError(
                JOB_FOREIGN,
                "The job inside the request names another principal or host than the session.",
                field="statement",
                hint="Sign the job with the session's key pair, for the session's host.",
            )
        limits = statement.limits
        module = statement.module_digest.hex()
        context = JobContext(
            *common,
            shown.verified,
            len(body),
            limits.memory_bytes,
            limits.gpu_memory_bytes,
            limits.deadline_ms,
            limits.output_bytes,
            limits.qubits,
            limits.compute_units,
            limits.qubits > 0,
            _LEVELS[statement.level],
            _RESULTS[statement.result],
            module,
            self._signers(module, now),
        )
        return Query(session.principal, session.groups, Action.SUBMIT_JOB, host.agent, context), statement

    def grant(
        self,
        docket: Docket,
        shown: Shown,
        session: Session,
        factors: tuple[str, ...],
        host: Attested,
        ask: JobStatement,
        now: int,
    ) -> Granted:
        """The one grant for this job."""
        del factors
        grant = Grant(
            grant_id=self._random(16).hex(),
            audience=host.agent,
            gateway=self._gateway,
            session=session.name,
            principal=session.principal,
            body_digest=shown.digest,
            limits=ask.limits,
            bundle_digest=docket.bundle_digest,
            attestation_digest=session.attestation_digest,
            issued_at=now,
            expires_at=min(now + GRANT_LIFETIME_S, session.expires_at),
        )
        docket.grant_id = grant.grant_id
        encoded, tag = seal_grant(host.grant_key, grant)
        return Granted(grant, host.channel, encoded, tag)


class AccessDemand:
    """An upstream's answer: what is asked for is in the request's target."""

    def __init__(self, upstream: Upstream) -> None:
        self.action = Action.ACCESS
        self.tenant = upstream.tenant
        self.verifies_body = upstream.verifies_body
        self._name = upstream.name

    def resource(self, host: Host) -> str:
        """The upstream."""
        del host
        return self._name

    def query(self, shown: Shown, session: Session, host: Attested, common: Common, now: int) -> tuple[Query, None]:
        """The question."""
        del host, now
        target = shown.target
        context = AccessContext(
            *common,
            target.method,
            target.authority.lower(),
            target.path,
            target.query.removeprefix("?"),
            shown.verified,
            shown.size,
        )
        return Query(session.principal, session.groups, Action.ACCESS, self._name, context), None

    def grant(
        self,
        docket: Docket,
        shown: Shown,
        session: Session,
        factors: tuple[str, ...],
        host: Attested,
        ask: None,
        now: int,
    ) -> Permitted:
        """What may be asserted to the upstream."""
        del docket, host, ask, now
        return Permitted(session, factors, shown)
