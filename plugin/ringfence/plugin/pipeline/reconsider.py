"""A session that makes no request, under policies that have changed: whether they would still open it. Pure."""

from __future__ import annotations

from contextlib import suppress

from ringfence.plugin.errors import GateError
from ringfence.plugin.host import Attested
from ringfence.plugin.pipeline.facts import Activity, common_facts, live_factors
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.stages import permitted_still
from ringfence.plugin.sessions.port import Session


def reconsider(means: Means, session: Session, host: Attested, *, now: int) -> None:
    """Binds the session to the present bundle, or retires it. `session` is as the store has it now.

    Nothing is known of a request that is not made, so its risk counts as none; the next request is judged by its own.
    """
    activity = Activity(0, 0, means.running(session.principal), means.approvals(session.principal, now))
    common = common_facts(
        host, session, live_factors(session, now), activity, now=now, source=session.source, tenant=""
    )
    with suppress(GateError):
        permitted_still(means, session, common)
