"""Requests to upstreams: signed, or with a browser's cookie; what the body's visibility means; bound channels."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest
from msgspec import structs

from ringfence import httpsig
from ringfence.attestation import AttestationResult, Status
from ringfence.attestation.result import digest as result_digest
from ringfence.audit.records import check_data, encode_data
from ringfence.crypto import COMPOSITE
from ringfence.errors import RingfenceError
from ringfence.plugin.errors import StepUpError
from ringfence.plugin.host import Attested, plain_trust
from ringfence.plugin.hosts.port import NO_CHANNEL, Channel, Inbound, Unseen
from ringfence.plugin.pipeline.cookies import session_token
from ringfence.plugin.pipeline.demands import AccessDemand, Permitted, Upstream
from ringfence.plugin.pipeline.docket import Decided
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.signin import csrf
from ringfence.plugin.signin.cookies import FORGERY
from ringfence.plugin.signin.cookies import SESSION as SESSION_COOKIE
from ringfence.plugin.threats.calm import Calm
from ringfence.policies import AccessContext, Query, Verdict
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
CLIENT, AGENT, VERIFIER = (KeyPair(*COMPOSITE.generate()) for _ in range(3))
KEY = bytes(range(32))
TARGET = httpsig.Target("POST", "Service.example", "/a/b", "?c=d")
THUMBPRINT = "a" * 64
FORGERY_KEY = bytes(reversed(range(32)))
ORIGIN = "https://service.example"
BUNDLE = "b" * 64


def attested() -> Attested:
    result = AttestationResult(
        issuer=VERIFIER.key_id,
        subject=AGENT.key_id,
        agent_key=AGENT.public,
        status=Status.AFFIRMING,
        score=90,
        reasons=(),
        issued_at=NOW - 10,
        expires_at=NOW + 300,
        evidence_digest="e" * 64,
    )
    return Attested(
        AGENT.key_id, result, "token", result_digest("token"), "channel", plain_trust(result, NOW), KEY, bytes(32)
    )


HOST = attested()


class Policies:
    """Answers what it is told to, and keeps what it was asked."""

    bundle_digest = BUNDLE

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.verdicts: Iterator[Verdict] = itertools.repeat(Verdict(True, ("permit",), ()))

    def decide(self, query: Query) -> Verdict:
        self.queries.append(query)
        return next(self.verdicts)

    @property
    def context(self) -> AccessContext:
        context = self.queries[-1].context
        assert isinstance(context, AccessContext)
        return context


class Gateway:
    """The pipeline of requests to one upstream, with one session open."""

    def __init__(self, *, verifies_body: bool = False, **session: object) -> None:
        self.policies = Policies()
        self.sessions = MemorySessions(10)
        opened = Session(
            name="session",
            principal=CLIENT.key_id,
            groups=("service-users",),
            host=AGENT.key_id,
            status="affirming",
            attestation_digest=HOST.digest,
            bundle_digest=BUNDLE,
            opened_at=NOW - 5,
            expires_at=NOW + 200,
            idle_s=3600,
            key=KEY,
            factors=(("oidc", NOW + 50), ("session-mac", 0)),
            tenant="acme",
        )
        self.session = structs.replace(opened, **session)
        self.sessions.add(self.session, now=NOW)
        trust = TrustList((Pin("client", Role.CLIENT, CLIENT.public, NOW),))
        self.means = Means(
            trust=lambda: trust,
            sessions=self.sessions,
            decider=self.policies,
            replay=NonceLedger(lifetime_s=MESSAGE_LIFETIME_S, capacity=1000, quota=1000),
            risk=Assessor(RiskSettings()),
            threats=Calm(),
            ceiling=90,
            ticks_ns=itertools.count(0, 5000).__next__,
            random=secrets.token_bytes,
            protect=lambda method, headers: csrf.protect(method, headers, key=FORGERY_KEY, origin=ORIGIN),
        )
        self.pipeline = RequestPipeline(
            self.means, AccessDemand(Upstream("service", tenant="acme", verifies_body=verifies_body))
        )

    def ask(self, inbound: Inbound, now: int = NOW) -> Decided[Permitted]:
        decided = self.pipeline.decide(inbound, HOST, now=now)
        check_data(decided.record, encode_data(decided.record))
        return decided

    def signed(
        self,
        body: bytes = b"body",
        shown: bytes | Unseen | None = None,
        *,
        target: httpsig.Target = TARGET,
        channel: Channel = NO_CHANNEL,
    ) -> Inbound:
        nonce = secrets.token_urlsafe(18)
        made = httpsig.sign(KEY, target, body, session="session", nonce=nonce, now=NOW, lifetime_s=60)
        return Inbound(target, list(made.items()), "192.0.2.1", "service", body if shown is None else shown, channel)


def allowed(decided: Decided[Permitted]) -> Permitted:
    assert isinstance(decided.ruling, Permitted), decided.ruling
    assert decided.record.verdict == "allow"
    return decided.ruling


def refused(decided: Decided[Permitted], code: str) -> RingfenceError:
    assert isinstance(decided.ruling, RingfenceError)
    assert (decided.ruling.code.name, decided.record.code) == (code, code)
    return decided.ruling


def test_policies_are_asked_about_exactly_what_the_upstream_receives() -> None:
    gateway = Gateway()
    permitted = allowed(gateway.ask(gateway.signed()))
    query, context = gateway.policies.queries[-1], gateway.policies.context
    assert (query.principal, query.resource, query.action.value) == (CLIENT.key_id, "service", "Access")
    assert (context.method, context.authority, context.path, context.query) == (
        "POST",
        "service.example",
        "/a/b",
        "c=d",
    )
    assert (context.body_verified, context.body_bytes) == (True, 4)
    assert (context.tenant, context.resource_tenant, context.session_age_s) == ("acme", "acme", 5)
    assert context.factors == permitted.factors == ("oidc", "session-mac")


def test_a_factor_ends_before_its_session() -> None:
    gateway = Gateway()
    allowed(gateway.ask(gateway.signed(), now=NOW + 50))
    assert gateway.policies.context.factors == ("session-mac",)


@pytest.mark.parametrize(
    ("shown", "verifies", "verified", "size"),
    [
        (Unseen.HIDDEN, False, False, -1),
        (Unseen.HIDDEN, True, True, -1),
        (Unseen.PARTIAL, False, False, -1),
        (Unseen.PARTIAL, True, False, -1),
    ],
)
def test_a_body_that_is_not_seen_is_verified_only_by_an_upstream_that_does_so(
    shown: Unseen, verifies: bool, verified: bool, size: int
) -> None:
    gateway = Gateway(verifies_body=verifies)
    permitted = allowed(gateway.ask(gateway.signed(shown=shown)))
    assert (gateway.policies.context.body_verified, gateway.policies.context.body_bytes) == (verified, size)
    assert permitted.shown.digest == httpsig.announced_digest(httpsig.parse(dict(gateway.signed().headers)))


def test_a_body_that_is_absent_must_be_signed_as_empty() -> None:
    gateway = Gateway()
    allowed(gateway.ask(gateway.signed(b"", Unseen.ABSENT)))
    assert (gateway.policies.context.body_verified, gateway.policies.context.body_bytes) == (True, 0)
    refused(gateway.ask(gateway.signed(b"body", Unseen.ABSENT)), "integrity.digest_mismatch")


def test_a_changed_body_and_a_replay_are_refused() -> None:
    gateway = Gateway()
    refused(gateway.ask(gateway.signed(b"body", b"bodY")), "integrity.digest_mismatch")
    once = gateway.signed()
    allowed(gateway.ask(once))
    refused(gateway.ask(once), "integrity.replayed")


@pytest.mark.parametrize("field", ["method", "authority", "path", "query"])
def test_another_target_than_the_signed_one_is_refused(field: str) -> None:
    gateway = Gateway()
    moved = replace(gateway.signed(), target=replace(TARGET, **{field: getattr(TARGET, field) + "x"}))
    refused(gateway.ask(moved), "integrity.signature_invalid")


def test_a_session_of_a_channel_is_of_no_use_on_another() -> None:
    gateway = Gateway(thumbprint=THUMBPRINT)
    for channel in (NO_CHANNEL, Channel("c" * 64)):
        refused(gateway.ask(gateway.signed(channel=channel)), "session.foreign_channel")
    allowed(gateway.ask(gateway.signed(channel=Channel(THUMBPRINT))))
    assert gateway.policies.context.channel_bound


def test_what_the_policies_ask_for_is_a_challenge_that_names_it() -> None:
    gateway = Gateway()
    gateway.policies.verdicts = iter([Verdict(False, ("strong-users",), (), ("webauthn",))])
    decided = gateway.ask(gateway.signed())
    error = refused(decided, "policy.step_up_required")
    assert isinstance(error, StepUpError)
    assert error.missing == decided.record.missing == ("webauthn",)
    assert (decided.record.verdict, decided.record.policies) == ("challenge", ("strong-users",))


def test_changed_policies_end_a_session_that_they_would_not_open() -> None:
    gateway = Gateway(bundle_digest="c" * 64)
    gateway.policies.verdicts = iter([Verdict(False, (), ())])
    refused(gateway.ask(gateway.signed()), "session.policy_changed")
    refused(gateway.ask(gateway.signed()), "session.unknown")


def test_changed_policies_keep_a_session_that_they_would_open() -> None:
    gateway = Gateway(bundle_digest="c" * 64)
    allowed(gateway.ask(gateway.signed()))
    actions = [query.action.value for query in gateway.policies.queries]
    assert actions == ["OpenSession", "Access"]
    assert "signature" in gateway.policies.queries[0].context.factors
    assert gateway.sessions.find("session", now=NOW).bundle_digest == BUNDLE


def cookies(gateway: Gateway) -> tuple[str, str]:
    """The values of the session's and of the forgery token's cookie."""
    session = f"session.{session_token(gateway.session.key)}"
    return session, csrf.token(FORGERY_KEY, session, bytes(csrf.SALT_BYTES))


def browser(
    gateway: Gateway, method: str = "GET", body: bytes | Unseen = Unseen.ABSENT, *, fields: dict[str, str] | None = None
) -> Inbound:
    target = httpsig.Target(method, "service.example", "/a")
    session, forgery = cookies(gateway)
    cookie = f"theme=dark; {SESSION_COOKIE}={session}; {FORGERY}={forgery}"
    headers = {"cookie": cookie} | (fields or {})
    return Inbound(target, list(headers.items()), "192.0.2.1", "service", body)


def browser_gateway() -> Gateway:
    return Gateway(factors=(("cookie", 0), ("oidc", 0), ("webauthn", NOW + 60)))


def test_a_browser_shows_its_cookie() -> None:
    gateway = browser_gateway()
    allowed(gateway.ask(browser(gateway)))
    assert gateway.policies.context.factors == ("cookie", "oidc", "webauthn")
    # Nothing signs a browser's request, so only one without a body is verified.
    form = browser(gateway, "POST", b"a=b", fields=unsafe(gateway))
    allowed(gateway.ask(form))
    assert (gateway.policies.context.body_verified, gateway.policies.context.body_bytes) == (False, 3)


def unsafe(gateway: Gateway) -> dict[str, str]:
    return {csrf.FIELD: cookies(gateway)[1], "origin": ORIGIN, "sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "http://service.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {csrf.FIELD: "wrong"},
        {csrf.FIELD: ""},
    ],
)
def test_another_site_cannot_make_a_browser_do_something(fields: dict[str, str]) -> None:
    gateway = browser_gateway()
    sent = unsafe(gateway) | fields if fields else {}
    refused(gateway.ask(browser(gateway, "POST", fields=sent)), "signin.request_forged")


def test_a_browser_in_which_nobody_has_shown_a_key_reaches_nothing() -> None:
    gateway = Gateway(factors=(("cookie", 0), ("oidc", 0)))
    error = refused(gateway.ask(browser(gateway)), "policy.step_up_required")
    assert isinstance(error, StepUpError)
    assert error.missing == ("webauthn",)
    assert gateway.policies.queries == []


def test_neither_proof_stands_for_the_other() -> None:
    gateway = Gateway()
    refused(gateway.ask(browser(gateway)), "session.foreign")
    gateway = browser_gateway()
    refused(gateway.ask(gateway.signed()), "session.foreign")


@pytest.mark.parametrize(
    ("cookie", "code"),
    [
        (f"{SESSION_COOKIE}=session.{'A' * 43}", "session.foreign"),
        (f"{SESSION_COOKIE}=session.{session_token(bytes(32))}", "session.foreign"),
        (f"{SESSION_COOKIE}=other.{session_token(KEY)}", "session.unknown"),
        (f"{SESSION_COOKIE}=session", "session.foreign"),
        (f"{SESSION_COOKIE}=a.{'A' * 43}; {SESSION_COOKIE}=b.{'A' * 43}", "signin.cookies_malformed"),
        (f"x={'a' * 8192}; {SESSION_COOKIE}=session.{session_token(KEY)}", "signin.cookies_too_large"),
        ("theme=dark", "integrity.signature_missing"),
    ],
)
def test_a_cookie_that_is_not_the_sessions_is_refused(cookie: str, code: str) -> None:
    gateway = browser_gateway()
    inbound = replace(browser(gateway), headers=[("cookie", cookie)])
    refused(gateway.ask(inbound), code)
