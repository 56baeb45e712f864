"""Opening a session with real handshakes, attestation results and policies: every stage denies with its code."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable

import msgspec
import pytest

from ringfence.attestation import AttestationError, AttestationResult, Status
from ringfence.attestation.errors import NONCE_MISMATCH
from ringfence.attestation.result import digest as result_digest
from ringfence.attestation.result import issue
from ringfence.audit.records import check_data, encode_data
from ringfence.crypto import COMPOSITE
from ringfence.crypto.handshake import Initiator
from ringfence.errors import RingfenceError
from ringfence.plugin.api import SESSION_PURPOSE
from ringfence.plugin.host import Attested, Host, Unreachable, plain_trust
from ringfence.plugin.pipeline.docket import Decided
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.opening import Opening, OpeningPipeline, SessionLimits
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.port import Features
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.threats.calm import Calm
from ringfence.policies import Query, Verdict
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import open_bundled
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
SOURCE = "192.0.2.1"
STAGES = ("parse", "signature", "identity", "device_trust", "risk", "policy", "session")
CLIENT, LAPSED, STRANGER, GATEWAY, AGENT, VERIFIER = (KeyPair(*COMPOSITE.generate()) for _ in range(6))
TRUST = TrustList(
    (
        Pin("client", Role.CLIENT, CLIENT.public, 1, ("clients", "job-submitters")),
        Pin("lapsed", Role.CLIENT, LAPSED.public, 1, ("clients",), NOW),
        Pin("no groups", Role.CLIENT, VERIFIER.public, 1),
        Pin("gateway", Role.GATEWAY, GATEWAY.public, 1),
    )
)
UNREACHABLE = Unreachable(AGENT.key_id, AttestationError(NONCE_MISMATCH, "The nonce is another one."))


def attested(status: Status = Status.AFFIRMING, *, since: int = NOW) -> Attested:
    """A host with a result that a verifier signed."""
    result = AttestationResult(
        issuer=VERIFIER.key_id,
        subject=AGENT.key_id,
        agent_key=AGENT.public,
        status=status,
        score=status.score,
        reasons=(),
        issued_at=since,
        expires_at=since + 300,
        evidence_digest="e" * 64,
    )
    token = issue(result, VERIFIER)
    return Attested(
        AGENT.key_id, result, token, result_digest(token), "channel", plain_trust(result, NOW), bytes(32), bytes(32)
    )


HOST = attested()


class Spy:
    """A decider that counts its queries; with `errors` it stands for policies that cannot be evaluated."""

    def __init__(self, *errors: str) -> None:
        self.decider = CEDAR
        self.errors = errors
        self.queries: list[Query] = []

    @property
    def bundle_digest(self) -> str:
        return self.decider.bundle_digest

    def decide(self, query: Query) -> Verdict:
        self.queries.append(query)
        return Verdict(True, ("permit-all",), self.errors) if self.errors else self.decider.decide(query)


CEDAR = CedarDecider(open_bundled("default"))


class Gateway:
    """The pipeline that opens sessions, and what it remembers."""

    def __init__(self, *, nonces: int = 1000, lifetime_s: int = 200, errors: tuple[str, ...] = ()) -> None:
        self.decider = Spy(*errors)
        self.risk = Assessor(RiskSettings())
        self.pipeline = OpeningPipeline(
            Means(
                trust=lambda: TRUST,
                sessions=MemorySessions(10),
                decider=self.decider,
                replay=NonceLedger(lifetime_s=MESSAGE_LIFETIME_S, capacity=nonces, quota=1000),
                risk=self.risk,
                threats=Calm(),
                ceiling=90,
                ticks_ns=itertools.count(0, 5000).__next__,
                random=secrets.token_bytes,
            ),
            signer=GATEWAY,
            limits=SessionLimits(lifetime_s, 3600),
        )

    def greet(self, message: bytes, host: Host = HOST, now: int = NOW) -> Decided[Opening]:
        return self.pipeline.decide(message, host, source=SOURCE, now=now)

    def guilt(self, subject: str) -> int:
        """The points for refusals that count against `subject`, as a principal or as a source."""
        scored = self.risk.assess(Features(subject, subject, "", 0, "", 0, NOW))
        return sum(reason.points for reason in scored.reasons if reason.feature.endswith("refusals"))


def hello(
    client: KeyPair = CLIENT, *, gateway: KeyPair = GATEWAY, purpose: str = SESSION_PURPOSE, now: int = NOW
) -> Initiator:
    return Initiator.start(client, gateway.public, purpose, now=now, random=secrets.token_bytes)


def forged() -> bytes:
    """A hello in the client's name, its signature altered."""
    message = hello().message
    return message[:-1] + bytes([message[-1] ^ 1])


def with_kem_key(public: bytes) -> bytes:
    outer = msgspec.msgpack.decode(hello().message)
    inner = msgspec.msgpack.encode({**msgspec.msgpack.decode(outer["hello"]), "kem_public": public})
    return msgspec.msgpack.encode({"hello": inner, "signature": CLIENT.sign(inner, b"ringfence handshake 1 hello")})


def denied(decided: Decided[Opening], stage: str, code: str) -> None:
    """The stages before `stage` allowed, it denied with `code`, and nothing ran after it."""
    assert isinstance(decided.ruling, RingfenceError)
    ran = STAGES[: STAGES.index(stage) + 1]
    assert [view.name for view in decided.trace] == list(ran)
    assert [view.verdict for view in decided.trace] == ["allow"] * (len(ran) - 1) + ["deny"]
    assert [view.code for view in decided.trace] == [""] * (len(ran) - 1) + [code]
    record = decided.record
    assert (record.verdict, record.code, decided.ruling.code.name) == ("deny", code, code)
    assert record.grant_id == ""
    check_data(record, encode_data(record))


def refused_often(gateway: Gateway, times: int = 9) -> Gateway:
    for _ in range(times):
        gateway.risk.refused(CLIENT.key_id, authenticated=True, now=NOW)
    return gateway


Opened = Callable[[Gateway], Decided[Opening]]
OPENING_DENIALS: dict[str, tuple[Opened, str, str]] = {
    "garbage": (lambda g: g.greet(b"garbage"), "parse", "handshake.malformed"),
    "nothing": (lambda g: g.greet(b""), "parse", "handshake.malformed"),
    "an unknown key": (lambda g: g.greet(hello(STRANGER).message), "parse", "identity.unknown_key"),
    "a lapsed pin": (lambda g: g.greet(hello(LAPSED).message), "parse", "identity.unknown_key"),
    "a gateway's key": (lambda g: g.greet(hello(GATEWAY).message), "parse", "identity.unknown_key"),
    "a forged signature": (
        lambda g: g.greet(forged()),
        "signature",
        "crypto.signature_invalid",
    ),
    "an old hello": (lambda g: g.greet(hello(now=NOW - 61).message), "signature", "handshake.stale"),
    "a channel's hello": (lambda g: g.greet(hello(purpose="channel").message), "signature", "handshake.misdirected"),
    "a hello for another": (lambda g: g.greet(hello(gateway=AGENT).message), "signature", "handshake.misdirected"),
    "a replayed hello": (
        lambda g: [g.greet(again) for again in [hello().message] * 2][1],
        "signature",
        "identity.replayed",
    ),
    "an absent host": (lambda g: g.greet(hello().message, UNREACHABLE), "device_trust", "device.not_attested"),
    "an expired result": (
        lambda g: g.greet(hello().message, attested(since=NOW - 300)),
        "device_trust",
        "device.not_attested",
    ),
    "a result from the future": (
        lambda g: g.greet(hello().message, attested(since=NOW + 1)),
        "device_trust",
        "device.not_attested",
    ),
    "many refusals": (lambda g: refused_often(g).greet(hello().message), "risk", "risk.too_high"),
    "an unattested host": (lambda g: g.greet(hello().message, attested(Status.NONE)), "policy", "policy.denied"),
    "a bad host": (lambda g: g.greet(hello().message, attested(Status.CONTRAINDICATED)), "policy", "policy.denied"),
    "a client without a group": (lambda g: g.greet(hello(VERIFIER).message), "policy", "policy.denied"),
    "an unusable key": (lambda g: g.greet(with_kem_key(bytes(1216))), "session", "crypto.key_invalid"),
}


@pytest.mark.parametrize("case", OPENING_DENIALS)
def test_every_stage_of_opening_denies_with_its_code(case: str) -> None:
    attempt, stage, code = OPENING_DENIALS[case]
    gateway = Gateway()
    decided = attempt(gateway)
    denied(decided, stage, code)
    record = decided.record
    authenticated = STAGES.index(stage) > STAGES.index("signature")
    assert record.principal in ((CLIENT.key_id, VERIFIER.key_id) if authenticated else ("",))
    assert record.session == ""
    assert bool(record.attestation_digest) == (STAGES.index(stage) > STAGES.index("device_trust"))
    assert len(gateway.decider.queries) == (stage in ("policy", "session")) + (case == "a replayed hello")
    # An absent host is not the caller's fault; a claim that was not proven is not the fault of whom it names.
    blamed = record.principal if authenticated else SOURCE
    assert (gateway.guilt(blamed) >= 12) == (code != "device.not_attested")
    assert authenticated or gateway.guilt(CLIENT.key_id) == 0


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda g: g.greet(hello(LAPSED).message), "The key is not pinned here as a client's, or its pin has ended."),
        (lambda g: g.greet(hello().message, attested(Status.NONE)), "have the host attested"),
    ],
)
def test_a_refusal_says_what_may_be_the_matter(attempt: Opened, says: str) -> None:
    assert says in str(attempt(Gateway()).ruling)


def test_a_session_opens_for_whom_and_where_the_record_says() -> None:
    gateway = Gateway()
    decided = gateway.greet(hello().message)
    assert isinstance(decided.ruling, Opening)
    assert [view.name for view in decided.trace] == list(STAGES)
    assert [view.micros for view in decided.trace] == [5] * len(STAGES)
    record = decided.record
    assert (record.verdict, record.code, record.principal) == ("allow", "", CLIENT.key_id)
    assert (record.session, record.resource) == (decided.ruling.responder.name, AGENT.key_id)
    assert (record.attestation_digest, record.bundle_digest) == (HOST.digest, CEDAR.bundle_digest)
    assert record.policies == ("permit-session-attested-host",)
    check_data(record, encode_data(record))


@pytest.mark.parametrize(("left", "expected"), [(300, 180), (180, 180), (10, 10), (1, 1)])
def test_no_session_outlives_its_attestation_result(left: int, expected: int) -> None:
    opening = Gateway().greet(hello().message, attested(since=NOW - 300 + left)).ruling
    assert isinstance(opening, Opening)
    # Of its 200 seconds a tenth is lost to the risk of a newcomer.
    assert opening.responder.expires_at == opening.session.expires_at == NOW + expected


def test_the_riskier_the_sooner_a_session_ends() -> None:
    lives = []
    for refusals in range(5):
        opening = refused_often(Gateway(), refusals).greet(hello().message).ruling
        assert isinstance(opening, Opening)
        lives.append(opening.session.expires_at - NOW)
    assert lives == sorted(lives, reverse=True)
    assert lives[0] - lives[-1] == 2 * 4 * 12


def test_a_denial_names_the_policies_that_forbid() -> None:
    record = Gateway().greet(hello().message, attested(Status.NONE)).record
    assert record.policies == ("forbid-unattested-host",)
    assert Gateway().greet(hello(VERIFIER).message).record.policies == ()


def test_a_policy_that_cannot_be_evaluated_denies_whatever_it_permits() -> None:
    decided = Gateway(errors=("type error",)).greet(hello().message)
    denied(decided, "policy", "policy.evaluation_failed")
    assert decided.record.policies == ()


def test_a_full_replay_cache_denies() -> None:
    gateway = Gateway(nonces=1)
    assert isinstance(gateway.greet(hello().message).ruling, Opening)
    denied(gateway.greet(hello().message), "signature", "integrity.replay_capacity")


def test_a_clock_that_goes_forth_and_back_takes_no_hello_twice() -> None:
    for began in range(NOW + 200, NOW + 300, 9):
        gateway, once = Gateway(), hello(now=began).message
        assert isinstance(gateway.greet(once, now=began).ruling, Opening)
        gateway.greet(hello(now=began + 1000).message, now=began + 1000)
        for shift in range(0, 60, 7):
            denied(gateway.greet(once, now=began + shift), "signature", "identity.replayed")


def test_the_client_ends_up_with_the_session_that_was_decided() -> None:
    initiator = hello()
    opening = Gateway().greet(initiator.message).ruling
    assert isinstance(opening, Opening)
    session = opening.session
    assert (session.principal, session.groups) == (CLIENT.key_id, ("clients", "job-submitters"))
    assert (session.host, session.status, session.attestation_digest) == (AGENT.key_id, "affirming", HOST.digest)
    assert (session.factors, opening.host) == ((("session-mac", 0),), HOST)
    reply, established = opening.responder.finish(GATEWAY, b"parameters")
    assert initiator.finish(reply) == established


def test_whoever_claims_a_clients_key_cannot_harm_its_owner() -> None:
    gateway = Gateway()
    for _ in range(50):
        denied(gateway.greet(forged()), "signature", "crypto.signature_invalid")
    # Not even from the same address, which others may share.
    assert isinstance(gateway.greet(hello().message).ruling, Opening)
