"""The identity assertion: issued by a gateway, verified by an upstream, with a JWT library beside ours."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ringfence import httpsig
from ringfence.plugin.assertion import (
    LIFETIME_S,
    MAX_KEYS,
    SKEW_S,
    TYPE,
    AssertionIssuer,
    AssertionVerifier,
    Subject,
    published_keys,
    read_published_keys,
    uri_of,
)
from ringfence.plugin.upstream.errors import UpstreamError

NOW = 1_790_000_000
PRIVATE, OTHER = bytes(range(32)), bytes(32)
ISSUER = AssertionIssuer("rf1gateway", PRIVATE)
TARGET = httpsig.Target("POST", "H.test:8443", "/a%20b", "?c=d")
SUBJECT = Subject(
    principal="rf1caller",
    session="s" * 32,
    groups=("clients",),
    factors=("session-mac",),
    content_digest=httpsig.content_digest(b"body"),
    decision_id="d-1",
    attestation="0" * 64,
    bundle="1" * 64,
)
TOKEN = ISSUER.issue(TARGET, "service", SUBJECT, now=NOW, jti="j" * 22)
VERIFIER = AssertionVerifier([ISSUER.public], gateway="rf1gateway", audience="service")


def code(token: str, target: httpsig.Target = TARGET, now: int = NOW, verifier: AssertionVerifier = VERIFIER) -> str:
    with pytest.raises(UpstreamError) as error:
        verifier.verify(token, target, now=now)
    return error.value.code.name


def test_an_assertion_says_what_was_decided() -> None:
    claims = VERIFIER.verify(TOKEN, TARGET, now=NOW)
    assert (claims.sub, claims.sid, claims.groups, claims.factors) == (
        SUBJECT.principal,
        SUBJECT.session,
        SUBJECT.groups,
        SUBJECT.factors,
    )
    assert (claims.htm, claims.htu, claims.exp - claims.iat) == ("POST", "h.test:8443/a%20b?c=d", LIFETIME_S)
    assert (claims.content_digest, claims.decision_id) == (SUBJECT.content_digest, "d-1")


def test_another_library_verifies_it_with_the_published_key() -> None:
    (key,) = jwt.PyJWKSet.from_dict(json.loads(published_keys([ISSUER.public]))).keys
    header = jwt.get_unverified_header(TOKEN)
    assert header == {"alg": "EdDSA", "kid": key.key_id, "typ": TYPE}
    claims = jwt.decode(
        TOKEN,
        key.key,
        algorithms=["EdDSA"],
        audience="service",
        issuer="rf1gateway",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["htu"] == uri_of(TARGET)


@pytest.mark.parametrize(
    "target",
    [
        httpsig.Target("GET", "h.test:8443", "/a%20b", "?c=d"),
        httpsig.Target("POST", "h.test", "/a%20b", "?c=d"),
        httpsig.Target("POST", "h.test:8443", "/a b", "?c=d"),
        httpsig.Target("POST", "h.test:8443", "/a%20b"),
        httpsig.Target("POST", "h.test:8443", "/a%20b", "?c=d&e"),
    ],
)
def test_it_is_for_one_request(target: httpsig.Target) -> None:
    assert code(TOKEN, target) == "assertion.wrong_target"


def test_it_is_for_one_upstream_of_one_gateway_now() -> None:
    for gateway, audience in (("rf1gateway", "other"), ("rf1other", "service")):
        verifier = AssertionVerifier([ISSUER.public], gateway=gateway, audience=audience)
        assert code(TOKEN, verifier=verifier) == "assertion.wrong_audience"
    for now in (NOW - SKEW_S - 1, NOW + LIFETIME_S + SKEW_S, 0):
        assert code(TOKEN, now=now) == "assertion.expired"
    VERIFIER.verify(TOKEN, TARGET, now=NOW - SKEW_S)
    VERIFIER.verify(TOKEN, TARGET, now=NOW + LIFETIME_S + SKEW_S - 1)


def forged(header: dict[str, Any], claims: dict[str, Any], key: bytes = PRIVATE) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    signed = ".".join(parts)
    signature = Ed25519PrivateKey.from_private_bytes(key).sign(signed.encode())
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"kid": "x"},
        {"typ": "JWT"},
        {"jku": "https://evil.test"},
        {"crit": ["x"]},
        {"jwk": {}},
    ],
)
def test_no_header_but_the_one_is_read(change: dict[str, Any]) -> None:
    header = jwt.get_unverified_header(TOKEN) | change
    assert code(forged(header, msgspec.to_builtins(VERIFIER.verify(TOKEN, TARGET, now=NOW)))) == "assertion.key_unknown"


def test_every_changed_character_is_noticed() -> None:
    for index in range(len(TOKEN)):
        changed = TOKEN[:index] + ("A" if TOKEN[index] != "A" else "B") + TOKEN[index + 1 :]
        assert code(changed).startswith("assertion."), index


def test_claims_are_exactly_those_of_an_assertion() -> None:
    header = base64.urlsafe_b64decode(TOKEN.split(".")[0] + "==")
    known = msgspec.to_builtins(VERIFIER.verify(TOKEN, TARGET, now=NOW))

    def signed(claims: dict[str, Any]) -> str:
        body = ".".join(
            base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, json.dumps(claims).encode())
        )
        signature = Ed25519PrivateKey.from_private_bytes(PRIVATE).sign(body.encode())
        return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    VERIFIER.verify(signed(known), TARGET, now=NOW)
    for change in (
        {"admin": True},
        {"jti": "short"},
        {"iat": "1"},
        {"groups": "clients"},
        {"content_digest": "md5=:AA==:"},
    ):
        assert code(signed(known | change)) == "assertion.malformed"
    assert code(signed(known | {"exp": NOW + 3600})) == "assertion.expired"
    assert code(signed({})) == "assertion.malformed"


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", TOKEN + "=", " " + TOKEN, TOKEN + "\n", "x" * 20_000, TOKEN.replace(".", "..")]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    assert code(token) in ("assertion.malformed", "assertion.key_unknown")


@given(st.text(max_size=300))
def test_no_text_is_an_assertion(text: str) -> None:
    assert code(text) == "assertion.malformed"


def test_keys_follow_one_another() -> None:
    after = AssertionIssuer("rf1gateway", OTHER)
    keys = read_published_keys(published_keys([ISSUER.public, after.public]))
    assert keys == (ISSUER.public, after.public)
    both = AssertionVerifier(keys, gateway="rf1gateway", audience="service")
    for issuer in (ISSUER, after):
        both.verify(issuer.issue(TARGET, "service", SUBJECT, now=NOW, jti="j" * 22), TARGET, now=NOW)
    assert code(after.issue(TARGET, "service", SUBJECT, now=NOW, jti="j" * 22)) == "assertion.key_unknown"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b'{"keys":[]}',
        b'{"keys":[{"kty":"RSA"}]}',
        b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}',
        b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"' + b"A" * 42 + b'B"}]}',
        b" " * 70000,
        published_keys([bytes([n]) * 32 for n in range(MAX_KEYS + 1)]),
    ],
)
def test_keys_that_are_none_are_refused(document: bytes) -> None:
    with pytest.raises(UpstreamError) as error:
        AssertionVerifier(read_published_keys(document), gateway="g", audience="a")
    assert error.value.code.name == "assertion.keys_malformed"


def test_an_issuer_shows_no_secret() -> None:
    assert PRIVATE.hex() not in repr(ISSUER)
    assert "private" not in repr(vars(ISSUER)).lower()
