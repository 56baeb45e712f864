"""Adding identity factors to a session: what evidence is bound to, and what does not get that far."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest

from ringfence import httpsig
from ringfence.audit.records import check_data, encode_data
from ringfence.crypto import COMPOSITE
from ringfence.errors import RingfenceError
from ringfence.plugin.api import step_up_challenge
from ringfence.plugin.errors import SESSION_UNKNOWN, GateError
from ringfence.plugin.hosts.port import Answer, Channel, Inbound
from ringfence.plugin.identity.port import Proven
from ringfence.plugin.pipeline.cookies import session_token
from ringfence.plugin.pipeline.docket import Decided
from ringfence.plugin.pipeline.factors import NONCE, Begun, FactorPipeline
from ringfence.plugin.pipeline.means import Means, no_browsers
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.sessions.port import Ended, Session
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.signin.cookies import SESSION
from ringfence.plugin.threats.calm import Calm
from ringfence.policies import Query, Verdict
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
CLIENT = KeyPair(*COMPOSITE.generate())
KEY = bytes(range(32))
TARGET = httpsig.Target("POST", "gateway", "/v1/factors")
PROVEN = Proven("webauthn", CLIENT.key_id, True, NOW + 600, oddities=("counter went back",))


class Unasked:
    """Policies have no part in this."""

    bundle_digest = "b" * 64

    def decide(self, query: Query) -> Verdict:
        raise AssertionError(query)


class Gateway:
    def __init__(self, protect: Callable[[str, Sequence[tuple[str, str]]], None] = no_browsers) -> None:
        self.sessions = MemorySessions(10)
        self.session = Session(
            "session", CLIENT.key_id, (), "host", "affirming", "a" * 64, "b" * 64, NOW, NOW + 900, 900, KEY
        )
        self.session = msgspec.structs.replace(self.session, factors=(("session-mac", 0),))
        self.sessions.add(self.session, now=NOW)
        trust = TrustList((Pin("client", Role.CLIENT, CLIENT.public, NOW),))
        self.risk = Assessor(RiskSettings())
        self.pipeline = FactorPipeline(
            Means(
                trust=lambda: trust,
                sessions=self.sessions,
                decider=Unasked(),
                replay=NonceLedger(lifetime_s=MESSAGE_LIFETIME_S, capacity=1000, quota=1000),
                risk=self.risk,
                threats=Calm(),
                ceiling=90,
                ticks_ns=itertools.count(0, 5000).__next__,
                random=secrets.token_bytes,
                protect=protect,
            )
        )

    def begin(self, inbound: Inbound) -> Begun:
        begun = self.pipeline.begin(inbound, now=NOW)
        assert isinstance(begun, Begun)
        return begun


def request(body: bytes | None = None, *, nonce: str = "n" * 24, key: bytes = KEY) -> Inbound:
    body = msgspec.msgpack.encode({"webauthn": b"assertion"}) if body is None else body
    made = httpsig.sign(key, TARGET, body, session="session", nonce=nonce, now=NOW, lifetime_s=60)
    return Inbound(TARGET, list(made.items()), "192.0.2.1", "", body, Channel("c" * 64))


def refused(decided: object, stage: str, code: str) -> None:
    assert isinstance(decided, Decided)
    assert isinstance(decided.ruling, RingfenceError)
    assert (decided.record.pipeline, decided.record.stages[-1].name, decided.record.code) == ("factor", stage, code)
    check_data(decided.record, encode_data(decided.record))


def test_evidence_is_bound_to_the_session_the_request_and_the_channel() -> None:
    evidence = Gateway().begin(request()).evidence
    assert evidence.pieces == {"webauthn": b"assertion"}
    assert evidence.binding.transcript == step_up_challenge("session", "n" * 24)
    assert (evidence.binding.thumbprint, evidence.binding.principal) == ("c" * 64, CLIENT.key_id)
    assert (
        len(
            {
                step_up_challenge("a", "bc"),
                step_up_challenge("ab", "c"),
                step_up_challenge("a", "b"),
                step_up_challenge("b", "a"),
            }
        )
        == 4
    )


def test_what_was_proven_is_the_sessions_until_it_ends() -> None:
    gateway = Gateway()
    decided = gateway.pipeline.finish(gateway.begin(request()), (PROVEN,), now=NOW)
    # Nothing that is not on record yet counts.
    assert gateway.sessions.find("session", now=NOW) == gateway.session
    assert gateway.pipeline.keep("session", (PROVEN,), now=NOW) == decided.ruling
    assert decided.record.verdict == "allow"
    assert decided.record.reasons == ("counter went back",)
    assert [stage.name for stage in decided.record.stages] == [
        "parse",
        "session",
        "signature",
        "integrity",
        "identity",
    ]
    assert gateway.sessions.find("session", now=NOW).factors == (("session-mac", 0), ("webauthn", NOW + 600))
    check_data(decided.record, encode_data(decided.record))


def test_what_was_not_proven_changes_nothing_and_counts_against_the_principal() -> None:
    gateway = Gateway()
    error = GateError(SESSION_UNKNOWN, "No.")
    refused(gateway.pipeline.finish(gateway.begin(request()), error, now=NOW), "identity", "session.unknown")
    assert gateway.sessions.find("session", now=NOW) == gateway.session


def test_a_session_that_ended_meanwhile_stays_ended() -> None:
    gateway = Gateway()
    begun = gateway.begin(request())
    gateway.sessions.end("session", Ended.REVOKED)
    refused(gateway.pipeline.finish(begun, (PROVEN,), now=NOW), "identity", "session.unknown")


def test_factors_that_are_proven_at_the_same_time_are_all_kept() -> None:
    gateway = Gateway()
    gateway.pipeline.keep("session", (PROVEN,), now=NOW)
    other = replace(PROVEN, factor="device")
    assert dict(gateway.pipeline.keep("session", (other,), now=NOW).factors).keys() == {
        "session-mac",
        "webauthn",
        "device",
    }


def test_evidence_and_cookies_are_in_no_repr() -> None:
    begun = Gateway().begin(request(msgspec.msgpack.encode({"oidc": b"secret token"})))
    cookie = Inbound(TARGET, [("cookie", "secret cookie")], "192.0.2.1", "", b"secret body")
    answer = Answer(200, forward=(("x-ringfence-assertion", "secret assertion"),))
    assert "secret" not in repr((begun, begun.evidence, cookie, answer))


def browser(nonce: bytes, **pieces: bytes) -> Inbound:
    body = msgspec.msgpack.encode({NONCE: nonce} | pieces)
    return Inbound(TARGET, [("cookie", f"{SESSION}=session.{session_token(KEY)}")], "192.0.2.1", "", body)


def of_a_browser() -> Gateway:
    gateway = Gateway(protect=lambda _method, _headers: None)
    gateway.sessions.end("session")
    gateway.sessions.add(msgspec.structs.replace(gateway.session, factors=(("cookie", 0),)), now=NOW)
    return gateway


def drawn(at: int) -> bytes:
    return at.to_bytes(8) + bytes(range(16))


def test_a_browsers_evidence_is_taken_once_and_never_again_once_it_is_forgotten() -> None:
    gateway = of_a_browser()
    once = browser(drawn(NOW), webauthn=b"assertion")
    begun = gateway.pipeline.begin(once, now=NOW)
    assert isinstance(begun, Begun)
    assert begun.evidence.binding.transcript == step_up_challenge("session", drawn(NOW).hex())
    # The log has what a restart must not forget.
    record = gateway.pipeline.finish(begun, (PROVEN,), now=NOW).record
    assert (record.nonce, record.nonce_until) == (f"session:{drawn(NOW).hex()}", NOW + 330)
    for later in range(0, 800, 7):
        code = "integrity.replayed" if later < 330 else "identity.evidence_malformed"
        refused(gateway.pipeline.begin(once, now=NOW + later), "integrity", code)


@pytest.mark.parametrize("nonce", [b"", b"n" * 8, drawn(NOW - 331), drawn(NOW + 31), drawn(NOW) + bytes(9)])
def test_a_browsers_nonce_without_its_time_is_refused(nonce: bytes) -> None:
    inbound = browser(nonce, webauthn=b"assertion")
    refused(of_a_browser().pipeline.begin(inbound, now=NOW), "integrity", "identity.evidence_malformed")


def test_evidence_is_taken_once() -> None:
    gateway = Gateway()
    gateway.begin(request())
    refused(gateway.pipeline.begin(request(), now=NOW), "integrity", "integrity.replayed")


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", msgspec.msgpack.encode({}), msgspec.msgpack.encode({str(n): b"" for n in range(10)}), b"\x81"],
)
def test_evidence_that_does_not_parse_is_refused(body: bytes) -> None:
    refused(Gateway().pipeline.begin(request(body), now=NOW), "integrity", "identity.evidence_malformed")


def test_a_stranger_gets_no_evidence_looked_at() -> None:
    refused(Gateway().pipeline.begin(request(key=bytes(32)), now=NOW), "signature", "integrity.signature_invalid")
