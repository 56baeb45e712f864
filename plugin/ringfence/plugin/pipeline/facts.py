"""The facts that policies of every action may read, put together from what the stages have established. Pure."""

from __future__ import annotations

import msgspec

from ringfence.plugin.host import Attested
from ringfence.plugin.sessions.port import Session
from ringfence.policies import DeviceStatus

Common = tuple[
    DeviceStatus,
    int,
    int,
    int,
    tuple[str, ...],
    str,
    tuple[str, ...],
    int,
    bool,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    str,
    str,
]
"""The fields of `CommonContext` in their order: a tuple, since every request makes one."""


class Activity(msgspec.Struct, frozen=True, gc=False):
    """What a principal is doing: its risk (0 to 100), requests in the last minute, jobs that run, and approvals."""

    risk: int
    requests_minute: int
    jobs_running: int
    approvals: int


def common_facts(
    host: Attested,
    session: Session,
    factors: tuple[str, ...],
    activity: Activity,
    *,
    now: int,
    source: str,
    tenant: str,
) -> Common:
    """The fields of `CommonContext` in their order; `factors` are sorted, `tenant` is the resource's."""
    trust = host.trust
    return (
        trust.status,
        trust.score,
        trust.reputation,
        now - host.result.issued_at,
        factors,
        session.tenant,
        session.attributes,
        now - session.directory_at if session.directory_at else -1,
        session.thumbprint != "",
        activity.approvals,
        activity.risk,
        activity.requests_minute,
        activity.jobs_running,
        max(0, now - session.opened_at),
        now,
        now // 3600 % 24,
        (now // 86_400 + 3) % 7,
        source,
        tenant,
    )


def live_factors(session: Session, now: int) -> tuple[str, ...]:
    """The session's factors that have not ended, sorted."""
    return tuple(sorted(name for name, until in session.factors if not until or now < until))
