"""What host adapters are answered: an assertion of exactly what was allowed, else a problem, and no exception."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from ringfence import audit, httpsig
from ringfence.audit.kinds import Decision, Record
from ringfence.crypto import COMPOSITE
from ringfence.plugin.api import Problem
from ringfence.plugin.asserting import SigningAsserter
from ringfence.plugin.assertion import AssertionIssuer, AssertionVerifier
from ringfence.plugin.hosts.port import ASSERTION, Inbound
from ringfence.plugin.keeper import Keeper
from ringfence.plugin.link import HostLink
from ringfence.plugin.pipeline.demands import AccessDemand, Upstream
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.settling import Settlement
from ringfence.plugin.strangers import StrangerLimit
from ringfence.plugin.threats.calm import Calm
from ringfence.policies import Query, Verdict
from ringfence.trust import KeyPair, Pin, Role, TrustList
from tests.plugin.requests_scene import AGENT, CLIENT, attested

SEED = bytes(range(32))
KEY = bytes(reversed(range(32)))
TARGET = httpsig.Target("POST", "Service.example", "/a", "?b=c")


class Link:
    """A host that was just attested, or a link that is broken in a way that it should not be."""

    def __init__(self) -> None:
        self.broken = False

    async def host(self) -> object:
        if self.broken:
            raise ZeroDivisionError
        return attested(since=int(time.time()))


class Policies:
    bundle_digest = "b" * 64

    def __init__(self) -> None:
        self.allowed = True

    def decide(self, query: Query) -> Verdict:
        return Verdict(self.allowed, ("some",) if query else (), ())


class Scene:
    def __init__(self, folder: Path) -> None:
        now = int(time.time())
        gateway = KeyPair(*COMPOSITE.generate())
        self.link, self.policies, self.told, self.recorded = Link(), Policies(), list[str](), list[Record]()
        sessions = MemorySessions(10)
        sessions.add(
            Session(
                name="session",
                principal=CLIENT.key_id,
                groups=("service-users",),
                host=AGENT.key_id,
                status="affirming",
                attestation_digest="a" * 64,
                bundle_digest=Policies.bundle_digest,
                opened_at=now,
                expires_at=now + 300,
                idle_s=300,
                key=KEY,
                factors=(("session-mac", 0),),
            ),
            now=now,
        )
        trust = TrustList((Pin("client", Role.CLIENT, CLIENT.public, now),))
        means = Means(
            trust=lambda: trust,
            sessions=sessions,
            decider=self.policies,
            replay=NonceLedger(lifetime_s=MESSAGE_LIFETIME_S, capacity=100, quota=100),
            risk=Assessor(RiskSettings()),
            threats=Calm(),
            ceiling=101,
            ticks_ns=itertools.count(0, 1000).__next__,
            random=secrets.token_bytes,
        )
        self.log = audit.AuditLog.open(folder, gateway, clock_ns=time.time_ns, verify=COMPOSITE.verify)
        issuer = AssertionIssuer(gateway.key_id, SEED)
        self.verifier = AssertionVerifier((issuer.public,), gateway=gateway.key_id, audience="service")
        self.keeper = Keeper(
            link=cast(HostLink, self.link),
            pipelines={"service": RequestPipeline(means, AccessDemand(Upstream("service")))},
            settlement=Settlement(self.log, StrangerLimit(100), ticks_ns=time.monotonic_ns, tell=self.recorded.append),
            asserter=SigningAsserter(issuer, secrets.token_bytes),
            tell=self.told.append,
            clock_ns=time.time_ns,
        )

    def asks(self, *, upstream: str = "service", key: bytes = KEY) -> Inbound:
        nonce, now = secrets.token_urlsafe(18), int(time.time())
        made = httpsig.sign(key, TARGET, b"body", session="session", nonce=nonce, now=now, lifetime_s=60)
        return Inbound(TARGET, list(made.items()), "192.0.2.1", upstream, b"body")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "log")
    yield made
    made.log.close()


def code(body: bytes) -> str:
    return msgspec.json.decode(body, type=Problem).code


async def test_an_allowed_request_goes_on_with_an_assertion_of_exactly_that(scene: Scene) -> None:
    inbound = scene.asks()
    answer = await scene.keeper.decide(inbound)
    assert answer.allowed
    forward = dict(answer.forward)
    claims = scene.verifier.verify(forward[ASSERTION], TARGET, now=int(time.time()))
    assert (claims.sub, claims.sid, claims.groups, claims.factors) == (
        CLIENT.key_id,
        "session",
        ("service-users",),
        ("session-mac",),
    )
    assert claims.content_digest == httpsig.content_digest(b"body")
    assert claims.decision_id == answer.decision_id == forward["x-ringfence-decision"]
    (record,) = scene.recorded
    assert isinstance(record, Decision)
    assert (record.decision_id, record.verdict) == (answer.decision_id, "allow")


async def test_a_refusal_names_its_record_and_gives_nothing_to_an_upstream(scene: Scene) -> None:
    scene.policies.allowed = False
    answer = await scene.keeper.decide(scene.asks())
    assert (answer.status, code(answer.body), answer.forward) == (403, "policy.denied", ())
    (record,) = scene.recorded
    assert isinstance(record, Decision)
    assert (record.decision_id, record.verdict, record.code) == (answer.decision_id, "deny", "policy.denied")


async def test_an_upstream_that_nobody_configured_is_refused(scene: Scene) -> None:
    answer = await scene.keeper.decide(scene.asks(upstream="other"))
    assert (answer.status, code(answer.body)) == (404, "gateway.unknown_upstream")


async def test_what_goes_wrong_inside_denies_and_is_told(scene: Scene) -> None:
    scene.link.broken = True
    answer = await scene.keeper.decide(scene.asks())
    assert (answer.status, code(answer.body), answer.forward) == (500, "internal.bug", ())
    assert scene.told == ["a decision failed and was denied: ZeroDivisionError"]


async def test_what_cannot_be_recorded_is_denied(scene: Scene) -> None:
    scene.log.close()
    answer = await scene.keeper.decide(scene.asks())
    assert (answer.status, code(answer.body), answer.forward) == (503, "audit.closed", ())
