"""Factors side by side: one deadline, no factor that takes others with it, and one principal that all agree on."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

import pytest

from ringfence.attestation import AttestationResult, Status
from ringfence.attestation.result import issue
from ringfence.crypto import COMPOSITE
from ringfence.plugin.identity import device
from ringfence.plugin.identity.assembly import MAX_PIECES, Outcome, identify, verify_side_by_side
from ringfence.plugin.identity.behaviour import BehaviourFactor
from ringfence.plugin.identity.device import DeviceFactor, make_evidence
from ringfence.plugin.identity.errors import TOKEN_TIME, IdentityError
from ringfence.plugin.identity.factors import BUILT_IN, BY_NAME, SIGNATURE, build
from ringfence.plugin.identity.oidc import encode_evidence
from ringfence.plugin.identity.port import Binding, Proven
from ringfence.plugin.identity.settings import (
    BehaviourSettings,
    DeviceSettings,
    IdentitySettings,
    KeySetSettings,
    OidcSettings,
    SubjectSettings,
    SvidSettings,
    WebAuthnSettings,
)
from ringfence.plugin.identity.subjects import SubjectMap
from ringfence.trust import KeyPair, Pin, Role, TrustList
from tests.plugin.identity.authenticator import ORIGIN, RP_ID, Authenticator
from tests.plugin.identity.certificates import NOW, WORKLOAD, authority, certificate
from tests.plugin.identity.test_identity_webauthn import enrol
from tests.plugin.identity.tokens import AUDIENCE, ISSUER, Issuer, encoded

TRANSCRIPT = hashlib.sha256(b"handshake").digest()
BINDING = Binding(TRANSCRIPT, "", "")
VERIFIER, DEVICE = (KeyPair(*COMPOSITE.generate()) for _ in range(2))
SUBJECTS = SubjectMap.of(
    [
        SubjectSettings("alice", "oidc", f"{ISSUER}#alice"),
        SubjectSettings("alice", "svid", WORKLOAD),
        SubjectSettings("alice", "device", DEVICE.key_id),
        SubjectSettings("bob", "device", DEVICE.key_id),
    ],
    named=BY_NAME,
)


class Told:
    """A factor that does as the test says."""

    def __init__(self, name: str, answer: Proven | BaseException, wait_s: float = 0) -> None:
        self.name = name
        self._answer = answer
        self._wait_s = wait_s

    async def verify(self, evidence: bytes, binding: Binding, *, now: int) -> Proven:
        assert (evidence, binding, now) == (b"evidence", BINDING, NOW)
        await asyncio.sleep(self._wait_s)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


def proof(factor: str, subject: str, *, key_bound: bool = True, until: int = NOW + 60) -> Proven:
    return Proven(factor, subject, key_bound, until)


async def verify(*factors: Told, deadline_s: float = 5) -> Outcome:
    pieces = {factor.name: b"evidence" for factor in factors}
    return await verify_side_by_side(
        {factor.name: factor for factor in factors if factor.name != "unknown"},
        pieces,
        BINDING,
        now=NOW,
        deadline_s=deadline_s,
    )


async def test_what_fails_fails_alone_and_says_why() -> None:
    good = proof("webauthn", "alice")
    outcome = await verify(
        Told("webauthn", good),
        Told("oidc", IdentityError(TOKEN_TIME, "It expired.")),
        Told("svid", KeyError("a bug")),
        Told("device", proof("webauthn", "bob")),
        Told("behaviour", proof("behaviour", "alice", until=NOW)),
        Told("unknown", good),
    )
    assert outcome.proven == (good,)
    assert outcome.failed == {
        "oidc": "identity.token_time",
        "svid": "internal.bug",
        "device": "identity.factor_ended",
        "behaviour": "identity.factor_ended",
        "unknown": "identity.factor_unknown",
    }


async def test_all_share_one_deadline_and_run_at_the_same_time() -> None:
    slow = [Told(name, proof(name, "alice"), 0.1) for name in ("webauthn", "oidc", "svid")]
    begun = time.monotonic()
    outcome = await verify(*slow, Told("device", proof("device", "alice"), 60), deadline_s=0.25)
    assert len(outcome.proven) == 3
    assert outcome.failed == {"device": "identity.factor_deadline"}
    assert time.monotonic() - begun < 0.6


async def test_a_caller_that_goes_away_ends_every_factor() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(verify(Told("oidc", proof("oidc", "alice"), 60)), 0.01)


async def test_too_much_evidence_is_not_looked_at() -> None:
    pieces = {str(number): b"" for number in range(MAX_PIECES + 1)}
    with pytest.raises(IdentityError) as refused:
        await verify_side_by_side({}, pieces, BINDING, now=NOW, deadline_s=1)
    assert refused.value.code.name == "identity.factor_unknown"


def refusal(*proven: Proven, principal: str = "") -> str:
    with pytest.raises(IdentityError) as refused:
        identify(Outcome(proven), SUBJECTS, Binding(TRANSCRIPT, "", principal))
    return refused.value.code.name


def test_a_key_bound_factor_is_always_needed() -> None:
    bearer = proof("oidc", f"{ISSUER}#alice", key_bound=False)
    usual = proof("behaviour", "alice", key_bound=False)
    assert refusal() == "identity.no_key_bound_factor"
    assert refusal(bearer, usual) == "identity.no_key_bound_factor"
    assert refusal(bearer, principal="alice") == "identity.no_key_bound_factor"
    found = identify(Outcome((bearer, usual, proof("webauthn", "alice"))), SUBJECTS, BINDING)
    assert found.principal == "alice"
    assert found.factors == (("oidc", NOW + 60), ("behaviour", NOW + 60), ("webauthn", NOW + 60))


def test_factors_that_speak_of_different_people_prove_nobody() -> None:
    token = proof("oidc", f"{ISSUER}#alice")
    assert refusal(token, proof("webauthn", "bob")) == "identity.subjects_conflict"
    assert refusal(token, principal="bob") == "identity.subjects_conflict"
    assert refusal(proof("webauthn", "Alice"), token) == "identity.subjects_conflict"
    assert refusal(token, proof("svid", "spiffe://example.org/other")) == "identity.subject_unknown"


def test_a_shared_device_is_whoevers_the_others_say_and_nobodys_alone() -> None:
    shared = proof("device", DEVICE.key_id)
    assert refusal(shared) == "identity.subjects_conflict"
    assert identify(Outcome((shared, proof("webauthn", "bob"))), SUBJECTS, BINDING).principal == "bob"
    assert identify(Outcome((shared,)), SUBJECTS, Binding(TRANSCRIPT, "", "alice")).principal == "alice"
    assert identify(Outcome((shared, proof(SIGNATURE, "bob"))), SUBJECTS, BINDING).principal == "bob"
    assert refusal(shared, proof("webauthn", "carol")) == "identity.subjects_conflict"


def result(status: Status = Status.AFFIRMING, *, issued_at: int = NOW, signer: KeyPair = VERIFIER) -> str:
    made = AttestationResult(
        issuer=signer.key_id,
        subject=DEVICE.key_id,
        agent_key=DEVICE.public,
        status=status,
        score=status.score,
        reasons=(),
        issued_at=issued_at,
        expires_at=issued_at + 3600,
        evidence_digest="0" * 64,
    )
    return issue(made, signer)


def devices(minimum: str = "affirming") -> DeviceFactor:
    return DeviceFactor(lambda _: {VERIFIER.key_id: VERIFIER.public}, minimum=minimum, max_age_s=300)


async def test_an_attested_device_proves_its_key_for_as_long_as_its_result_is_fresh() -> None:
    proven = await devices().verify(make_evidence(result(), DEVICE, TRANSCRIPT), BINDING, now=NOW + 299)
    attributes = ("device_status=affirming", f"device_score={Status.AFFIRMING.score}")
    assert proven == Proven("device", DEVICE.key_id, True, NOW + 300, attributes=attributes)


@pytest.mark.parametrize(
    ("evidence", "now"),
    [
        (make_evidence(result(), DEVICE, TRANSCRIPT), NOW + 300),
        (make_evidence(result(), DEVICE, TRANSCRIPT), NOW - 60),
        # Copied from the device: another key signs, or the device signed another session.
        (make_evidence(result(), VERIFIER, TRANSCRIPT), NOW),
        (make_evidence(result(), DEVICE, bytes(32)), NOW),
        (make_evidence(result(signer=DEVICE), DEVICE, TRANSCRIPT), NOW),
        (make_evidence(result(Status.WARNING), DEVICE, TRANSCRIPT), NOW),
        (make_evidence(result(Status.NONE), DEVICE, TRANSCRIPT), NOW),
        (make_evidence("not.a.token", DEVICE, TRANSCRIPT), NOW),
    ],
)
async def test_another_device_is_refused(evidence: bytes, now: int) -> None:
    with pytest.raises(IdentityError) as refused:
        await devices().verify(evidence, BINDING, now=now)
    assert refused.value.code.name == "identity.device_refused"


async def test_a_lower_minimum_takes_more() -> None:
    evidence = make_evidence(result(Status.WARNING), DEVICE, TRANSCRIPT)
    assert (await devices("warning").verify(evidence, BINDING, now=NOW)).key_bound


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 9999, b'{"result":"","signature":"*"}'])
def test_what_is_no_evidence_of_a_device_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        device.decode_evidence(data)
    with pytest.raises(IdentityError) as large:
        device.decode_evidence(b" " * (device.MAX_EVIDENCE + 1))
    assert large.value.code.name == "identity.evidence_too_large"


class Familiar:
    """Knows alice by half."""

    def familiarity(self, principal: str, *, now: int) -> int:
        assert now == NOW
        return {"alice": 70}.get(principal, 0)


async def test_behaviour_proves_a_principal_that_is_familiar_and_no_key() -> None:
    factor = BehaviourFactor(Familiar(), familiarity=70, lifetime_s=300)
    alice = Binding(TRANSCRIPT, "", "alice")
    expected = Proven("behaviour", "alice", False, NOW + 300, attributes=("familiarity=70",))
    assert await factor.verify(b"", alice, now=NOW) == expected
    for evidence, binding, code in [
        (b"", Binding(TRANSCRIPT, "", "bob"), "identity.behaviour_unfamiliar"),
        (b"", BINDING, "identity.behaviour_unfamiliar"),
        (b"x", alice, "identity.evidence_malformed"),
    ]:
        with pytest.raises(IdentityError) as refused:
            await factor.verify(evidence, binding, now=NOW)
        assert refused.value.code.name == code


async def test_every_built_in_factor_is_made_from_settings_and_they_agree(tmp_path: Path) -> None:
    root, key = authority(), Issuer()
    leaf = certificate(root, uris=(WORKLOAD,))
    (tmp_path / "bundle.pem").write_bytes(root.pem)
    (tmp_path / "keys.json").write_bytes(key.jwks())
    settings = IdentitySettings(
        subjects=(
            SubjectSettings("alice", "oidc", f"{ISSUER}#alice"),
            SubjectSettings("alice", "svid", WORKLOAD),
            SubjectSettings("alice", "device", DEVICE.key_id),
        ),
        svid=SvidSettings({"example.org": tmp_path / "bundle.pem"}),
        oidc=OidcSettings(ISSUER, AUDIENCE, KeySetSettings(file=tmp_path / "keys.json")),
        webauthn=WebAuthnSettings(RP_ID, (ORIGIN,), tmp_path / "credentials"),
        device=DeviceSettings((VERIFIER.key_id,)),
        behaviour=BehaviourSettings(),
    )
    trust = TrustList((Pin("verifier", Role.VERIFIER, VERIFIER.public, NOW),))
    factors = build(settings, trust=lambda: trust, behaviour_score=Familiar())
    assert set(factors.by_name) == set(BUILT_IN)
    security_key = Authenticator()
    assert factors.credentials is not None
    await factors.credentials.add(enrol(security_key))
    bound = {"x5t#S256": encoded(bytes.fromhex(leaf.thumbprint))}
    evidence = {
        "svid": leaf.pem,
        "oidc": encode_evidence(key.token(cnf=bound)),
        "webauthn": security_key.assertion(TRANSCRIPT),
        "device": make_evidence(result(), DEVICE, TRANSCRIPT),
        "behaviour": b"",
    }
    binding = Binding(TRANSCRIPT, leaf.thumbprint, "alice")
    outcome = await verify_side_by_side(factors.by_name, evidence, binding, now=NOW, deadline_s=settings.deadline_s)
    assert outcome.failed == {}
    found = identify(outcome, factors.subjects, binding)
    assert found.principal == "alice"
    assert [name for name, _ in found.factors] == list(BUILT_IN)
    assert found.oddities == ()
