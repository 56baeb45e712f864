"""Admission: whether a grant and a caller's own signature together entitle a job to run on this host. Pure.

A stolen gateway key can deny, not invent: the grant says that the gateway allows it, the caller's signature that the
caller wants it, and the agent checks the second against its own list of principals.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.agent.api.errors import (
    GRANT_BODY,
    GRANT_SPENT,
    JOB_LIMITS,
    JOB_PRINCIPAL,
    JOB_REPLAYED,
    GrantError,
    JobError,
)
from ringfence.agent.api.grants import Grant, open_grant
from ringfence.agent.api.jobs import JobLimits, JobStatement, Submission, check_submission, parse_submission
from ringfence.agent.spent import SpentIds
from ringfence.crypto import digest
from ringfence.trust.errors import TrustError
from ringfence.trust.pins import Role, TrustList


@dataclass(frozen=True, slots=True)
class Presented:
    """What a gateway hands over for one job; nothing here is authenticated."""

    grant: bytes
    tag: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Admitted:
    """A job that may run, once its record is durable."""

    grant: Grant
    submission: Submission
    statement: JobStatement

    @property
    def nonce_id(self) -> str:
        """The caller's nonce, qualified by the caller, as it is remembered."""
        return f"{self.statement.principal}:{self.statement.nonce.hex()}"

    @property
    def spent_until(self) -> int:
        """When the grant and the job have both expired."""
        return max(self.grant.expires_at, self.statement.expires_at)


def admit(
    presented: Presented,
    *,
    key: bytes,
    gateway: str,
    host: str,
    trust: TrustList,
    ceiling: JobLimits,
    spent: SpentIds,
    now: int,
) -> Admitted:
    """The job, if everything holds; its grant id and its nonce are spent then. Raises the error of the first check."""
    grant = open_grant(key, presented.grant, presented.tag, audience=host, gateway=gateway, now=now)
    if digest(presented.body) != grant.body_digest:
        raise GrantError(
            GRANT_BODY,
            "The body is not the one that the grant is for; it was changed or cut short.",
            field="body",
            hint="Send the request again.",
        )
    submission, statement = parse_submission(presented.body)
    principal = _principal(trust, statement.principal, now)
    if statement.principal != grant.principal:
        raise JobError(JOB_PRINCIPAL, "The grant is for another principal than the job.", field="principal")
    check_submission(submission, statement, principal=principal, host=host, now=now)
    for limits, whose in ((grant.limits, "grant"), (ceiling, "host")):
        if not statement.limits.within(limits):
            raise JobError(
                JOB_LIMITS,
                f"The job asks for more than the {whose} allows.",
                field="limits",
                hint="Ask for less; the host's limits are in its agent's configuration.",
            )
    admitted = Admitted(grant, submission, statement)
    # Each under its own expiry: a fresh grant must not make an old statement look as if it had never been forgotten.
    if not spent.spend(grant.grant_id, expires_at=grant.expires_at, now=now):
        raise GrantError(GRANT_SPENT, "The grant was used before.", field="grant_id", hint="Ask for a new grant.")
    if not spent.spend(admitted.nonce_id, expires_at=statement.expires_at, now=now):
        raise JobError(JOB_REPLAYED, "The caller's job ran before.", field="nonce", hint="Sign the job anew.")
    return admitted


def _principal(trust: TrustList, key: str, now: int) -> bytes:
    try:
        return trust.find(Role.CLIENT, key, now).public
    except TrustError as error:
        raise JobError(
            JOB_PRINCIPAL,
            "The job's principal is not pinned on this host.",
            field="principal",
            hint="Have the host's operator run `ringfence trust add client`.",
        ) from error
