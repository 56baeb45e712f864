"""Tokens: what is accepted, the confusions that are refused, and the key that a token is bound to."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import RingfenceError
from ringfence.plugin.identity.errors import IdentityError
from ringfence.plugin.identity.keyring import Keyring
from ringfence.plugin.identity.oidc import OidcFactor, encode_evidence
from ringfence.plugin.identity.port import Binding, Proven
from ringfence.plugin.identity.settings import KeySetSettings, OidcSettings
from tests.plugin.identity.certificates import NOW, p256
from tests.plugin.identity.tokens import AUDIENCE, ISSUER, Issuer, encoded, proof, public_jwk, thumbprint

IDP = Issuer()
TRANSCRIPT = hashlib.sha256(b"handshake").digest()
THUMBPRINT = hashlib.sha256(b"certificate").hexdigest()
BINDING = Binding(TRANSCRIPT, THUMBPRINT, "")
HOLDER = p256()
SETTINGS = OidcSettings(
    issuer=ISSUER,
    audience=AUDIENCE,
    keys=KeySetSettings(url="https://issuer.example/keys"),
    proof_url="https://gateway.example/v1/sessions",
    groups_claim="groups",
    attribute_claims={"department": "dept", "admin": "is_admin", "level": "level"},
)


class Given:
    """A source that always gives the same set."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def load(self) -> bytes:
        return self._data


def factor(settings: OidcSettings = SETTINGS, issuer: Issuer = IDP) -> OidcFactor:
    return OidcFactor(settings, Keyring(Given(issuer.jwks()), settings.keys))


async def verify(token: str, proof: str = "", *, now: int = NOW, issuer: Issuer = IDP) -> Proven:
    return await factor(issuer=issuer).verify(encode_evidence(token, proof), BINDING, now=now)


async def refusal(token: str, proof: str = "", *, now: int = NOW) -> str:
    with pytest.raises(IdentityError) as refused:
        await verify(token, proof, now=now)
    return refused.value.code.name


@pytest.mark.parametrize("key", [p256(), ed25519.Ed25519PrivateKey.generate()])
async def test_a_token_bound_to_the_channels_certificate_proves_its_subject(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
) -> None:
    issuer = Issuer(key=key)
    token = issuer.token(
        cnf={"x5t#S256": encoded(bytes.fromhex(THUMBPRINT))},
        groups=["staff", "staff", 7, "gpu\n"],
        dept="physics",
        is_admin=False,
        level=3,
    )
    assert await verify(token, issuer=issuer) == Proven(
        "oidc",
        f"{ISSUER}#alice",
        True,
        NOW + 600,
        ("staff",),
        ("department=physics", "admin=false", "level=3"),
    )


async def test_a_token_bound_to_a_key_needs_a_proof_for_this_session() -> None:
    token = IDP.token(cnf={"jkt": thumbprint(HOLDER)})
    assert (await verify(token, proof(HOLDER, token, TRANSCRIPT))).key_bound


async def test_without_an_address_for_proofs_a_token_that_needs_one_is_refused() -> None:
    token = IDP.token(cnf={"jkt": thumbprint(HOLDER)}, groups="staff")
    plain = factor(msgspec.structs.replace(SETTINGS, proof_url=""))
    with pytest.raises(IdentityError) as refused:
        await plain.verify(encode_evidence(token, proof(HOLDER, token, TRANSCRIPT)), BINDING, now=NOW)
    assert refused.value.code.name == "identity.token_confirmation"
    assert (await verify(token, proof(HOLDER, token, TRANSCRIPT))).groups == ("staff",)


async def test_a_bearer_token_proves_no_key() -> None:
    assert not (await verify(IDP.token())).key_bound


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ({"key": p256()}, "identity.proof_invalid"),
        ({"transcript": bytes(32)}, "identity.proof_invalid"),
        ({"token": "another"}, "identity.proof_invalid"),
        ({"htm": "GET"}, "identity.proof_invalid"),
        ({"htu": "https://gateway.example/v1/jobs"}, "identity.proof_invalid"),
        ({"iat": NOW - 61}, "identity.proof_invalid"),
        ({"iat": NOW + 6}, "identity.proof_invalid"),
        ({"jti": None}, "identity.evidence_malformed"),
        ({"nonce": None}, "identity.evidence_malformed"),
        ({"headers": {"typ": "jwt"}}, "identity.token_type"),
        ({"headers": {"jwk": None}}, "identity.evidence_malformed"),
        ({"headers": {"jwk": {**public_jwk(HOLDER), "d": "AA"}}}, "identity.proof_invalid"),
        ({"headers": {"jwk": {"kty": "oct", "k": "AAAA"}}}, "identity.proof_invalid"),
        ({"headers": {"jwk": public_jwk(p256())}}, "identity.proof_invalid"),
    ],
)
async def test_another_proof_is_refused(made: dict[str, Any], code: str) -> None:
    token = IDP.token(cnf={"jkt": thumbprint(HOLDER)})
    arguments = {"key": HOLDER, "token": token, "transcript": TRANSCRIPT, **made}
    assert await refusal(token, proof(**arguments)) == code


async def test_a_proof_signed_by_another_key_than_it_shows_is_refused() -> None:
    token = IDP.token(cnf={"jkt": thumbprint(HOLDER)})
    forged = proof(p256(), token, TRANSCRIPT, headers={"jwk": public_jwk(HOLDER)})
    assert await refusal(token, forged) == "identity.token_signature"
    assert await refusal(token) == "identity.evidence_malformed"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://issuer.example/"}, "identity.token_issuer"),
        ({"aud": "https://elsewhere.example"}, "identity.token_audience"),
        ({"aud": [AUDIENCE + "/"]}, "identity.token_audience"),
        ({"iat": NOW - 60, "exp": NOW - 5}, "identity.token_time"),
        ({"exp": NOW + 3601}, "identity.token_time"),
        ({"exp": NOW}, "identity.token_time"),
        ({"iat": NOW + 6, "exp": NOW + 60}, "identity.token_time"),
        ({"nbf": NOW + 6}, "identity.token_time"),
        ({"exp": None}, "identity.evidence_malformed"),
        ({"iat": None}, "identity.evidence_malformed"),
        ({"sub": None}, "identity.evidence_malformed"),
        ({"sub": ""}, "identity.evidence_malformed"),
        ({"exp": True}, "identity.evidence_malformed"),
        ({"exp": 1e300}, "identity.evidence_malformed"),
        ({"cnf": {"x5t#S256": "A" * 43}}, "identity.token_confirmation"),
        ({"cnf": {"jwk": {}}}, "identity.token_confirmation"),
    ],
)
async def test_another_claim_is_refused(claims: dict[str, Any], code: str) -> None:
    assert await refusal(IDP.token(**claims)) == code


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"typ": "JWT"}, "identity.token_type"),
        ({"typ": "dpop+jwt"}, "identity.token_type"),
        ({"kid": "two"}, "identity.token_key_unknown"),
        ({"crit": ["exp"]}, "identity.evidence_malformed"),
    ],
)
async def test_another_header_is_refused(headers: dict[str, Any], code: str) -> None:
    assert await refusal(IDP.token(headers)) == code


async def test_the_type_may_be_written_as_a_media_type() -> None:
    assert await verify(IDP.token({"typ": "application/AT+JWT"}))


def hand_made(header: dict[str, Any], signature: bytes | None = None, key: bytes = b"") -> str:
    body = {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 600}
    signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(body).encode())}"
    return f"{signed}.{encoded(hmac.digest(key, signed.encode(), 'sha256') if signature is None else signature)}"


async def test_algorithms_cannot_be_confused() -> None:
    public = IDP.key.public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        IDP.jwks(),
    ]
    for secret in secrets:
        # The public key as the secret of a MAC.
        assert await refusal(hand_made({"alg": "HS256", "typ": "at+jwt", "kid": "one"}, key=secret)) == (
            "identity.token_algorithm"
        )
    for none in ("none", "None", "NONE", ""):
        assert await refusal(hand_made({"alg": none, "typ": "at+jwt", "kid": "one"}, b"x")) == (
            "identity.token_algorithm"
        )
    assert await refusal(hand_made({"alg": "EdDSA", "typ": "at+jwt", "kid": "one"}, bytes(64))) == (
        "identity.token_algorithm"
    )
    assert await refusal(hand_made({"alg": "ES256", "typ": "at+jwt", "kid": "one"}, bytes(64))) == (
        "identity.token_signature"
    )


async def test_an_algorithm_that_is_not_pinned_is_refused_though_its_key_is_published() -> None:
    narrow = factor(msgspec.structs.replace(SETTINGS, algorithms=("EdDSA",)))
    with pytest.raises(IdentityError) as refused:
        await narrow.verify(encode_evidence(IDP.token()), BINDING, now=NOW)
    assert refused.value.code.name == "identity.token_algorithm"


async def test_a_token_ends_when_it_says_and_the_leeway_is_over() -> None:
    token = IDP.token(iat=NOW - 60, exp=NOW)
    assert (await verify(token, now=NOW + 4)).subject
    assert await refusal(token, now=NOW + 5) == "identity.token_time"


async def test_a_key_that_a_token_brings_or_points_to_is_not_looked_at() -> None:
    forger = Issuer()
    brought = {
        "jwk": public_jwk(forger.key),
        "jku": "https://forger.example/keys",
        "x5u": "https://forger.example/chain",
        "x5c": ["AAAA"],
    }
    assert await refusal(forger.token(brought)) == "identity.token_signature"
    assert await verify(IDP.token(brought))


async def test_a_token_of_another_key_or_altered_is_refused() -> None:
    assert await refusal(Issuer().token()) == "identity.token_signature"
    head, body, signature = IDP.token().split(".")
    for altered in (f"{head}.{body[:-2]}AA.{signature}", f"{head}.{body}.{signature[:-4]}AAAA"):
        assert await refusal(altered) == "identity.token_signature"


@pytest.mark.parametrize("evidence", [b"", b"{}", b'{"token":1}', b'{"token":"a","more":1}', b"[" * 10_000, b"\xff"])
async def test_what_is_no_evidence_is_refused(evidence: bytes) -> None:
    with pytest.raises(IdentityError) as refused:
        await factor().verify(evidence, BINDING, now=NOW)
    assert refused.value.code.name == "identity.evidence_malformed"


async def test_a_huge_token_is_refused_unread() -> None:
    assert await refusal("A" * (16 * 1024 + 1)) == "identity.evidence_too_large"
    with pytest.raises(IdentityError) as refused:
        await factor().verify(b" " * 30_000, BINDING, now=NOW)
    assert refused.value.code.name == "identity.evidence_too_large"


@given(st.text(max_size=200), st.integers(0, 300))
def test_an_altered_token_never_raises_anything_else(junk: str, at: int) -> None:
    token = IDP.token()
    altered = token[:at] + junk + token[at + len(junk) :]
    try:
        asyncio.run(verify(altered))
    except RingfenceError:
        return
    assert altered == token
