"""Attestation results: what a verifier issues is what a relying party reads, and no attack on the JWT gets through."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.attestation import AttestationError, AttestationResult, Status, conclude, result
from ringfence.attestation.verifier import Appraisal
from ringfence.crypto import COMPOSITE, key_id

NOW = 1_700_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class KeyInMemory:
    """A signer over a fresh key."""

    public: bytes
    private: bytes = dataclasses.field(repr=False)

    @property
    def key_id(self) -> str:
        return key_id(self.public)

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        return COMPOSITE.sign(self.private, message, context)


@pytest.fixture(scope="module")
def verifier() -> KeyInMemory:
    return KeyInMemory(*COMPOSITE.generate())


@pytest.fixture(scope="module")
def stranger() -> KeyInMemory:
    return KeyInMemory(*COMPOSITE.generate())


@pytest.fixture(scope="module")
def issued(verifier: KeyInMemory, agent_key: bytes) -> AttestationResult:
    appraisal = Appraisal(agent_key, Status.AFFIRMING, ("A known boot.",), "ab" * 32, NOW, None)
    return conclude(appraisal, issuer=verifier.key_id, lifetime_s=300)


@pytest.fixture(scope="module")
def token(issued: AttestationResult, verifier: KeyInMemory) -> str:
    return result.issue(issued, verifier)


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def part(token: str, index: int) -> dict[str, Any]:
    segment = token.split(".")[index]
    read: dict[str, Any] = msgspec.json.decode(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return read


def compact(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    unsigned = f"{b64(msgspec.json.encode(header))}.{b64(msgspec.json.encode(claims))}"
    return f"{unsigned}.{b64(sign(unsigned.encode()))}"


def refusal(token: str, verifier: KeyInMemory, now: int = NOW) -> str:
    with pytest.raises(AttestationError) as refused:
        result.check(token, verifiers={verifier.key_id: verifier.public}, now=now)
    return refused.value.code.name.removeprefix("attestation.")


def test_what_is_issued_is_what_is_read(token: str, issued: AttestationResult, verifier: KeyInMemory) -> None:
    assert result.check(token, verifiers={verifier.key_id: verifier.public}, now=NOW) == issued
    assert result.digest(token) == hashlib.sha256(token.encode()).hexdigest()


@pytest.mark.parametrize("status", list(Status))
def test_every_status_survives(status: Status, verifier: KeyInMemory, agent_key: bytes) -> None:
    appraisal = Appraisal(agent_key, status, (), "00" * 32, NOW, None)
    issued = conclude(appraisal, issuer=verifier.key_id, lifetime_s=60)
    token = result.issue(issued, verifier)
    assert result.check(token, verifiers={verifier.key_id: verifier.public}, now=NOW + 59) == issued


def test_the_token_is_an_ear_for_anyone_who_reads_ear(token: str, verifier: KeyInMemory, agent_key: bytes) -> None:
    assert part(token, 0) == {"alg": "ML-DSA-65-Ed25519", "typ": "ear+jwt", "kid": verifier.key_id}
    claims = part(token, 1)
    assert claims["eat_profile"] == "tag:github.com,2023:veraison/ear"
    assert claims["ear.verifier-id"].keys() == {"developer", "build"}
    assert claims["submods"]["host"]["ear.status"] == "affirming"
    assert claims["submods"]["host"]["ear.trustworthiness-vector"] == {"instance-identity": 2, "executables": 3}
    assert claims["cnf"] == {"jwk": {"kty": "AKP", "alg": "ML-DSA-65-Ed25519", "pub": b64(agent_key)}}
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 300)


def test_a_result_lives_from_its_issue_to_its_expiry(token: str, verifier: KeyInMemory) -> None:
    pinned = {verifier.key_id: verifier.public}
    assert result.check(token, verifiers=pinned, now=NOW + 299)
    assert refusal(token, verifier, NOW + 300) == "result_expired"
    assert result.check(token, verifiers=pinned, now=NOW - 5)
    assert refusal(token, verifier, NOW - 6) == "result_not_yet_valid"


def test_an_unsigned_result_is_refused(token: str, verifier: KeyInMemory) -> None:
    header = part(token, 0) | {"alg": "none"}
    unsigned = compact(header, part(token, 1), lambda _: b"")
    assert refusal(unsigned, verifier) == "result_malformed"
    assert refusal(unsigned + b64(b"x"), verifier) == "result_algorithm"


@pytest.mark.parametrize("algorithm", ["HS256", "ES256", "EdDSA", "ML-DSA-65", "ml-dsa-65-ed25519", ["none"], None])
def test_another_algorithm_is_refused(token: str, verifier: KeyInMemory, algorithm: object) -> None:
    # The classic: the public key taken for an HMAC secret.
    swapped = compact(
        part(token, 0) | {"alg": algorithm},
        part(token, 1),
        lambda unsigned: hmac.digest(verifier.public, unsigned, "sha256"),
    )
    assert refusal(swapped, verifier) == "result_algorithm"


def test_a_verifier_that_is_not_pinned_is_refused(token: str, verifier: KeyInMemory, stranger: KeyInMemory) -> None:
    foreign = compact(part(token, 0) | {"kid": stranger.key_id}, part(token, 1), stranger.sign)
    assert refusal(foreign, verifier) == "result_verifier_unknown"
    impostor = compact(part(token, 0), part(token, 1), stranger.sign)
    assert refusal(impostor, verifier) == "result_signature"


def test_one_pinned_verifier_does_not_speak_for_another(
    token: str, verifier: KeyInMemory, stranger: KeyInMemory
) -> None:
    pinned = {key.key_id: key.public for key in (verifier, stranger)}
    borrowed = compact(part(token, 0) | {"kid": stranger.key_id}, part(token, 1), stranger.sign)
    with pytest.raises(AttestationError) as refused:
        result.check(borrowed, verifiers=pinned, now=NOW)
    assert refused.value.code.name == "attestation.result_malformed"


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"crit": ["exp"]},
        {"jwk": {"kty": "AKP"}},
        {"b64": False},
        {"kid": 7},
        {"kid": None},
    ],
)
def test_a_header_that_says_more_or_less_is_refused(token: str, verifier: KeyInMemory, header: dict[str, Any]) -> None:
    signed = compact(part(token, 0) | header, part(token, 1), verifier.sign)
    assert refusal(signed, verifier) == "result_malformed"


def test_a_swapped_confirmation_key_is_refused(token: str, verifier: KeyInMemory, other_agent_key: bytes) -> None:
    claims = part(token, 1)
    claims["cnf"]["jwk"]["pub"] = b64(other_agent_key)
    header, _, signature = token.split(".")
    assert refusal(f"{header}.{b64(msgspec.json.encode(claims))}.{signature}", verifier) == "result_signature"
    assert refusal(compact(part(token, 0), claims, verifier.sign), verifier) == "result_key_mismatch"


@pytest.mark.parametrize(
    "change",
    [
        {"eat_profile": "tag:example.org,2020:other"},
        {"exp": NOW},
        {"exp": NOW + 3601},
        {"exp": "tomorrow"},
        {"iss": "me"},
        {"nbf": 0},
        {"submods": {}},
        {"submods": {"host": {"ear.status": "excellent"}}},
        {"cnf": {"kid": "me"}},
        {"cnf": {"jwk": {"kty": "AKP", "alg": "ML-DSA-65-Ed25519", "pub": "A"}}},
    ],
)
def test_claims_outside_the_profile_are_refused_even_when_signed(
    token: str, verifier: KeyInMemory, change: dict[str, Any]
) -> None:
    assert refusal(compact(part(token, 0), part(token, 1) | change, verifier.sign), verifier) == "result_malformed"


@pytest.mark.parametrize(
    "change",
    [
        {"ear.trustworthiness-vector": {"instance-identity": 2, "executables": 96}},
        {"ringfence.trust-score": 101},
        {"ringfence.evidence-digest": "00"},
    ],
)
def test_an_appraisal_that_contradicts_itself_is_refused(
    token: str, verifier: KeyInMemory, change: dict[str, Any]
) -> None:
    claims = part(token, 1)
    claims["submods"]["host"] |= change
    assert refusal(compact(part(token, 0), claims, verifier.sign), verifier) == "result_malformed"


@pytest.mark.parametrize("suffix", ["=", "==", "\n", " ", ".e30", "A" * 33_000])
def test_a_token_has_one_spelling_only(token: str, verifier: KeyInMemory, suffix: str) -> None:
    assert refusal(token + suffix, verifier) == "result_malformed"


def test_a_verifier_signs_in_its_own_name_only(issued: AttestationResult, stranger: KeyInMemory) -> None:
    with pytest.raises(AttestationError) as refused:
        result.issue(issued, stranger)
    assert refused.value.code.name == "attestation.result_verifier_unknown"


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[A-Za-z0-9_-]{1,20}\.[A-Za-z0-9_-]{1,20}\.[A-Za-z0-9_-]{1,9}")))
def test_no_text_crashes_the_check(text: str) -> None:
    with pytest.raises(AttestationError):
        result.check(text, verifiers={}, now=NOW)


@given(data=st.data())
def test_no_single_changed_character_passes(data: st.DataObject, token: str, verifier: KeyInMemory) -> None:
    at = data.draw(st.integers(0, len(token) - 1))
    changed = token[:at] + data.draw(st.sampled_from("Ab0_-.=")) + token[at + 1 :]
    if changed != token:
        assert refusal(changed, verifier)
