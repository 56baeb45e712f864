"""Browsers' sessions: who gets one after signing in, what it is bound to, and that it ends for good."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from ringfence import audit
from ringfence.audit.kinds import Record
from ringfence.audit.kinds import Session as SessionRecord
from ringfence.crypto import COMPOSITE
from ringfence.errors import RingfenceError
from ringfence.plugin.browsers import Browsers
from ringfence.plugin.identity.port import Proven
from ringfence.plugin.link import HostLink
from ringfence.plugin.pipeline.browsing import BrowsingPipeline, SignedIn
from ringfence.plugin.pipeline.cookies import cookie_session
from ringfence.plugin.pipeline.means import Known, Means
from ringfence.plugin.pipeline.opening import SessionLimits
from ringfence.plugin.pipeline.reconsider import reconsider
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.sessions.port import Selection, Session
from ringfence.plugin.sessions.revocations import Revocation, Revocations
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.settling import Settlement
from ringfence.plugin.signin.cookies import SESSION
from ringfence.plugin.strangers import StrangerLimit
from ringfence.plugin.threats.calm import Calm
from ringfence.policies import Query, Verdict
from ringfence.trust import KeyPair, Pin, Role, TrustList
from tests.plugin.requests_scene import AGENT, CLIENT, attested

NOW = int(time.time())
PROVEN = Proven("oidc", "https://issuer#alice", False, NOW + 120, groups=("staff",), attributes=("team=beam",))


class Policies:
    def __init__(self) -> None:
        self.bundle_digest = "b" * 64
        self.allowed = True
        self.queries: list[Query] = []

    def decide(self, query: Query) -> Verdict:
        self.queries.append(query)
        return Verdict(self.allowed, ("some",), ())


class Link:
    async def host(self) -> object:
        return attested(since=NOW - 1)


class Scene:
    def __init__(self, folder: Path) -> None:
        self.policies, self.recorded, self.sessions = Policies(), list[Record](), MemorySessions(10)
        self.principal = CLIENT.key_id
        trust = TrustList((Pin("alice", Role.CLIENT, CLIENT.public, NOW, ("clients",)),))
        self.means = Means(
            trust=lambda: trust,
            sessions=self.sessions,
            decider=self.policies,
            replay=NonceLedger(lifetime_s=MESSAGE_LIFETIME_S, capacity=100, quota=100),
            risk=Assessor(RiskSettings()),
            threats=Calm(),
            ceiling=101,
            ticks_ns=itertools.count(0, 1000).__next__,
            random=secrets.token_bytes,
            directory=lambda _principal, now: Known(("service-users",), "acme", ("site=north",), now - 5),
        )
        self.log = audit.AuditLog.open(
            folder, KeyPair(*COMPOSITE.generate()), clock_ns=time.time_ns, verify=COMPOSITE.verify
        )
        self.revocations = Revocations(900)
        self.browsers = Browsers(
            pipeline=BrowsingPipeline(
                self.means,
                limits=SessionLimits(600, 300),
                identify=lambda proven, _now: SignedIn(self.principal, (("oidc", proven.proven_until),), (proven,)),
            ),
            link=cast(HostLink, Link()),
            sessions=self.sessions,
            revocations=self.revocations,
            settlement=Settlement(self.log, StrangerLimit(100), ticks_ns=time.monotonic_ns, tell=self.recorded.append),
            clock=lambda: NOW,
        )

    async def open(self) -> tuple[str, Session]:
        cookie = await self.browsers.open(PROVEN, (("oidc", PROVEN.proven_until),))
        found = cookie_session([("cookie", f"{SESSION}={cookie}")])
        assert found is not None
        return cookie, self.sessions.find(found[0], now=NOW)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "log")
    yield made
    made.log.close()


async def test_a_browser_s_session_is_its_person_s_and_ends_with_what_was_proven(scene: Scene) -> None:
    _, session = await scene.open()
    assert (session.principal, session.host, session.status) == (CLIENT.key_id, AGENT.key_id, "affirming")
    assert session.groups == ("clients", "service-users", "staff")
    assert session.attributes == ("site=north", "team=beam")
    assert (session.tenant, session.directory_at) == ("acme", NOW - 5)
    assert session.factors == (("cookie", 0), ("oidc", NOW + 120))
    assert session.expires_at == NOW + 120
    query = scene.policies.queries[0]
    assert (query.action.value, query.context.factors) == ("OpenSession", ("oidc",))
    assert [type(record).__name__ for record in scene.recorded] == ["Decision", "Session"]


async def test_each_session_has_a_key_of_its_own(scene: Scene) -> None:
    (one, first), (other, second) = await scene.open(), await scene.open()
    assert one != other
    assert first.key != second.key
    assert all(first.key.hex() not in str(record) for record in scene.recorded)


async def test_policies_decide_who_may_sign_in(scene: Scene) -> None:
    scene.policies.allowed = False
    with pytest.raises(RingfenceError, match="deny"):
        await scene.open()
    assert len(scene.sessions) == 0


async def test_somebody_who_is_not_pinned_gets_no_session(scene: Scene) -> None:
    scene.principal = "rf1nobody"
    with pytest.raises(RingfenceError, match="no client that is pinned"):
        await scene.open()


async def test_whoever_was_revoked_meanwhile_gets_no_session(scene: Scene) -> None:
    scene.revocations.add(Revocation("principal", CLIENT.key_id, NOW), now=NOW)
    with pytest.raises(RingfenceError, match="revoked"):
        await scene.open()
    assert len(scene.sessions) == 0


async def test_logging_out_ends_the_session_of_that_cookie_alone(scene: Scene) -> None:
    cookie, session = await scene.open()
    await scene.open()
    for wrong in ("", "x", f"{session.name}.{'A' * 43}", f"other.{cookie.partition('.')[2]}"):
        await scene.browsers.end(wrong)
    assert len(scene.sessions) == 2
    await scene.browsers.end(cookie)
    assert [left.name for left in scene.sessions.select(Selection())] != [session.name]
    assert len(scene.sessions) == 1
    ended = scene.recorded[-1]
    assert isinstance(ended, SessionRecord)
    assert (ended.event, ended.session, ended.code) == ("closed", session.name, "session.closed")


async def test_a_session_without_requests_is_judged_by_the_policies_that_hold_now(scene: Scene) -> None:
    _, session = await scene.open()
    host = attested(since=NOW - 1)
    scene.policies.bundle_digest = "c" * 64
    reconsider(scene.means, session, host, now=NOW)
    assert scene.sessions.find(session.name, now=NOW).bundle_digest == "c" * 64
    scene.policies.bundle_digest, scene.policies.allowed = "d" * 64, False
    reconsider(scene.means, session, host, now=NOW)
    assert len(scene.sessions) == 0
