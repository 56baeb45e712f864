"""The stages that the pipelines share, each a pure decision: raises to deny, returns what it established to allow."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from ringfence.errors import RingfenceError
from ringfence.plugin.errors import (
    DEVICE_CHANGED,
    DEVICE_UNATTESTED,
    HELLO_REPLAYED,
    POLICY_DENIED,
    POLICY_FAILED,
    REQUEST_REPLAYED,
    RISK_TOO_HIGH,
    SESSION_POLICY,
    STEP_UP_REQUIRED,
    GateError,
    StepUpError,
)
from ringfence.plugin.host import Attested, Host, Unreachable
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.facts import Activity, Common
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.risk.port import Features, RiskScore
from ringfence.plugin.risk.reasons import raised, recorded
from ringfence.plugin.sessions.port import Ended, Session
from ringfence.plugin.threats.detector import admit
from ringfence.plugin.threats.port import Happened, Sighting, Standing
from ringfence.policies import Action, Decider, Query, SessionContext

SIGNATURE_FACTOR: Final = "signature"
SESSION_FACTOR: Final = "session-mac"
COOKIE_FACTOR: Final = "cookie"
KEY_BOUND: Final = frozenset({SIGNATURE_FACTOR, SESSION_FACTOR, "svid", "webauthn", "device"})
"""The factors that prove possession of a key. Without one, nobody is anybody, whatever the policies say."""


def trust_device(host: Host, *, now: int) -> Attested:
    """The host, if there is a fresh attestation result for it. What its status permits is the policies' decision."""
    if isinstance(host, Unreachable):
        raise GateError(
            DEVICE_UNATTESTED,
            f"There is no fresh attestation result for the host: {host.fault.message}",
            hint=host.fault.hint or "Start its agent, then try again.",
        )
    if not host.result.issued_at <= now < host.result.expires_at:
        raise GateError(
            DEVICE_UNATTESTED,
            "The host's attestation result is not valid at this time.",
            hint="Check the clocks, then try again.",
        )
    return host


def same_device(host: Attested, *, agent: str, status: str) -> Attested:
    """`host`, if it is still the device, in the state, that the session was opened with."""
    if host.agent != agent or host.trust.status != status:
        raise GateError(
            DEVICE_CHANGED,
            f"The host's trust status is now {host.trust.status}; the session was opened at {status}.",
            hint="Open a new session.",
        )
    return host


def key_bound(session: Session, factors: tuple[str, ...]) -> None:
    """Raises `policy.step_up_required` for a session in which nobody has proven to hold a key."""
    if session.thumbprint or not KEY_BOUND.isdisjoint(factors):
        return
    raise StepUpError(
        STEP_UP_REQUIRED,
        "Nobody has proven to hold a key in this session.",
        field="factors",
        hint="Show a security key in this session, then send the request again.",
        missing=("webauthn",),
    )


def assess(means: Means, docket: Docket, *, size: int, drift: int, now: int) -> Activity:
    """The risk of a request by the docket's authenticated principal, with what threat detection adds to it.

    Raises `threat.locked_out`, `threat.rate_exceeded`, `policy.step_up_required`, `risk.too_high`.
    """
    principal, source = docket.principal, docket.source
    standing = means.threats.standing(source="", principal=principal, now=now)
    if standing.locked_until or standing.retry_after_s or standing.step_up:
        _stand(standing, now)
    scored = means.risk.assess(Features(principal, source, docket.action, size, means.region(source), drift, now))
    if standing.risk:
        scored = raised(scored, standing.risk)
    score = scored.score
    if score:
        docket.reasons = recorded(scored)
    if score >= means.ceiling:
        raise _too_risky(scored, means.ceiling)
    return Activity(
        risk=score,
        requests_minute=means.risk.requests_minute(principal, now=now),
        jobs_running=means.running(principal),
        approvals=means.approvals(principal, now),
    )


def admit_stranger(means: Means, source: str, now: int) -> None:
    """Raises unless a source that has proven nothing may have a costly signature verified.

    It stops a source from buying work with refusals; whoever is in a session is not held up by others at its source.
    """
    standing = means.threats.standing(source=source, principal="", now=now)
    if standing.locked_until or standing.retry_after_s:
        _stand(standing, now)


def _stand(standing: Standing, now: int) -> None:
    admit(standing, now=now)
    if standing.step_up:
        raise StepUpError(
            STEP_UP_REQUIRED,
            f"What happened lately asks for the factor {standing.step_up} again.",
            field="factors",
            hint="Show that factor in this session, then send the request again.",
            missing=(standing.step_up,),
        )


def apply_policy(decider: Decider, docket: Docket, query: Query) -> None:
    """Asks the policies; the docket has the question and the ids that decided. Raises `policy.*`."""
    docket.asked = query
    verdict = decider.decide(query)
    docket.policies = verdict.policies
    if verdict.allowed and not verdict.errors:
        return
    if verdict.errors:
        docket.policies = ()
        raise GateError(
            POLICY_FAILED,
            "A policy could not be evaluated, and what cannot be evaluated is denied.",
            hint="Run the bundle's tests.",
        )
    why = ", ".join(verdict.policies) or "no policy permits it"
    if verdict.step_up:
        raise StepUpError(
            STEP_UP_REQUIRED,
            f"The policies ask for more proof of who you are: {why}.",
            field="factors",
            hint=f"Show {' and '.join(verdict.step_up)} in this session, then send the request again.",
            missing=verdict.step_up,
        )
    raise GateError(
        POLICY_DENIED,
        f"The policies deny this request: {why}.",
        hint="Ask for less, have the host attested, or have the named policy reviewed.",
    )


def permitted_still(means: Means, session: Session, common: Common) -> Session:
    """The session under the policies that hold now, if they would still open it; else it ends.

    Raises `session.policy_changed`.
    """
    # As when it was opened: where its requests are signed, that took a signature, which it does not show again. A
    # browser's session never had one, and a cookie proves nothing of its own.
    shown = SessionContext(*common)
    factors = {SIGNATURE_FACTOR if name == SESSION_FACTOR else name for name in shown.factors} - {COOKIE_FACTOR}
    opening = structs.replace(shown, factors=tuple(sorted(factors)), resource_tenant="")
    verdict = means.decider.decide(Query(session.principal, session.groups, Action.OPEN_SESSION, session.host, opening))
    if verdict.errors or not verdict.allowed:
        means.sessions.retire(session.name, Ended.POLICY)
        raise GateError(
            SESSION_POLICY,
            "The policies have changed, and would not open this session any more.",
            field="keyid",
            hint="Open a new session, or have the policies reviewed.",
        )
    kept = structs.replace(session, bundle_digest=means.decider.bundle_digest)
    means.sessions.change(kept)
    return kept


def sight(means: Means, decided: Decided[object], now: int, *, claimed: str = "") -> None:
    """Tells threat detection of a decision. What is not authenticated counts against its source alone."""
    record = decided.record
    if not isinstance(decided.ruling, RingfenceError):
        what = Happened.OPENED if record.pipeline == "session" else Happened.ALLOWED
        if record.pipeline == "factor":
            what = Happened.STEPPED_UP
    elif not decided.blames_caller:
        return
    elif decided.ruling.code in (REQUEST_REPLAYED, HELLO_REPLAYED):
        what = Happened.REPLAYED
    elif not record.principal and record.code.startswith(("identity.", "crypto.")):
        what = Happened.BAD_CREDENTIAL
    else:
        what = Happened.REFUSED
    region = means.region(record.source)
    means.threats.see(
        Sighting(what, record.code, record.source, record.principal, claimed, record.session, region, now)
    )


def _too_risky(scored: RiskScore, ceiling: int) -> GateError:
    reasons = "; ".join(reason.text for reason in scored.reasons) or "what was seen of it lately"
    return GateError(
        RISK_TOO_HIGH,
        f"The risk score is {scored.score}, the gateway's ceiling {ceiling}: {reasons}.",
        hint="Wait some minutes; the score fades.",
    )
