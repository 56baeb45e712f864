"""The pipeline that opens a browser's session, once its person has signed in: identity to session. No I/O.

What an identity token proves is bound to no key. Such a session therefore reaches nothing before its person has shown
a factor that is (`stages.key_bound`), or unless it holds only on a channel with a client certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from ringfence.plugin.errors import PRINCIPAL_UNKNOWN, GateError
from ringfence.plugin.host import Host
from ringfence.plugin.hosts.port import NO_CHANNEL, Channel
from ringfence.plugin.identity.port import Proven
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.facts import common_facts
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.opening import SessionLimits, lifetime
from ringfence.plugin.pipeline.stages import COOKIE_FACTOR, apply_policy, assess, sight, trust_device
from ringfence.plugin.sessions.port import Session
from ringfence.policies import Action, Query, SessionContext
from ringfence.trust.errors import TrustError
from ringfence.trust.pins import Role

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who has signed in: the principal's key id, and its factors with when each ends."""

    principal: str
    factors: tuple[tuple[str, int], ...]
    proven: tuple[Proven, ...]


class BrowsingPipeline:
    """Decides whether somebody who has signed in gets a browser's session."""

    def __init__(self, means: Means, *, limits: SessionLimits, identify: Callable[[Proven, int], SignedIn]) -> None:
        self._means = means
        self._limits = limits
        self._identify = identify

    def decide(
        self, proven: Proven, host: Host, *, source: str, now: int, channel: Channel = NO_CHANNEL
    ) -> Decided[Session]:
        """The decision on one signing in; its session has a key of its own, and is not in the store yet."""
        means = self._means
        docket = Docket(
            means.random(16).hex(),
            "session",
            means.ticks_ns,
            action=Action.OPEN_SESSION.value,
            resource=host.agent,
            source=source,
            bundle_digest=means.decider.bundle_digest,
        )
        decided = docket.decide(lambda: self._stages(docket, proven, host, channel, now))
        if decided.blames_caller:
            means.risk.refused(docket.principal or source, authenticated=bool(docket.principal), now=now)
        sight(means, decided, now)
        return decided

    def _stages(self, docket: Docket, proven: Proven, host: Host, channel: Channel, now: int) -> Session:
        means = self._means
        docket.begin("identity")
        draft = self._draft(docket, self._identify(proven, now), channel, now)
        docket.begin("device_trust")
        attested = trust_device(host, now=now)
        docket.attestation_digest = attested.digest
        docket.begin("risk")
        activity = assess(means, docket, size=0, drift=attested.trust.drift, now=now)
        docket.begin("policy")
        shown = tuple(sorted(name for name, _ in draft.factors if name != COOKIE_FACTOR))
        facts = common_facts(attested, draft, shown, activity, now=now, source=docket.source, tenant="")
        context = SessionContext(*facts)
        apply_policy(
            means.decider, docket, Query(draft.principal, draft.groups, Action.OPEN_SESSION, docket.resource, context)
        )
        docket.begin("session")
        docket.session = means.random(16).hex()
        expires_at = min(now + lifetime(self._limits, activity), attested.result.expires_at, proven.proven_until)
        return structs.replace(
            draft,
            name=docket.session,
            host=attested.agent,
            status=attested.trust.status.value,
            attestation_digest=attested.digest,
            expires_at=expires_at,
        )

    def _draft(self, docket: Docket, signed_in: SignedIn, channel: Channel, now: int) -> Session:
        means = self._means
        try:
            pin = means.trust().find(Role.CLIENT, signed_in.principal, now)
        except TrustError as error:
            raise GateError(
                PRINCIPAL_UNKNOWN,
                "Whoever has signed in is no client that is pinned here.",
                field="sub",
                hint="Have the operator pin the client, and name it in `identity.subjects`.",
            ) from error
        docket.principal = pin.key_id
        known = means.directory(pin.key_id, now)
        said = {group for proof in signed_in.proven for group in proof.groups}
        attributes = {one for proof in signed_in.proven for one in proof.attributes}
        return Session(
            name="",
            principal=pin.key_id,
            groups=tuple(sorted({*pin.groups, *known.groups, *said})),
            host="",
            status="",
            attestation_digest="",
            bundle_digest=docket.bundle_digest,
            opened_at=now,
            expires_at=0,
            idle_s=self._limits.idle_s,
            key=means.random(KEY_BYTES),
            factors=tuple(sorted({(COOKIE_FACTOR, 0), *signed_in.factors})),
            thumbprint=channel.thumbprint,
            tenant=known.tenant,
            attributes=tuple(sorted({*known.attributes, *attributes})),
            directory_at=known.fetched_at,
            source=docket.source,
        )
