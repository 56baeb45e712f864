"""An issuer of tokens, and the proofs that go with them, as tests need them: good ones and bad ones."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from tests.plugin.identity.certificates import NOW, p256

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
ISSUER = "https://issuer.example"
AUDIENCE = "https://gateway.example"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_jwk(key: SigningKey, **members: Any) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return {**ECAlgorithm.to_jwk(public, as_dict=True), **members}
    return {**OKPAlgorithm.to_jwk(public, as_dict=True), **members}


def thumbprint(key: SigningKey) -> str:
    # Written apart from the code under test: RFC 7638, section 3.1.
    text = json.dumps(public_jwk_required(key), sort_keys=True, separators=(",", ":"))
    return encoded(hashlib.sha256(text.encode()).digest())


def public_jwk_required(key: SigningKey) -> dict[str, Any]:
    jwk = public_jwk(key)
    return {name: jwk[name] for name in ("crv", "kty", "x", "y") if name in jwk}


@dataclass
class Issuer:
    """Signs with the key `kid` of its set."""

    kid: str = "one"
    key: SigningKey = field(default_factory=p256)

    @property
    def algorithm(self) -> str:
        return "ES256" if isinstance(self.key, ec.EllipticCurvePrivateKey) else "EdDSA"

    def jwks(self, *more: dict[str, Any]) -> bytes:
        return json.dumps({"keys": [public_jwk(self.key, kid=self.kid, use="sig"), *more]}).encode()

    def token(self, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        body = {
            "iss": ISSUER,
            "sub": "alice",
            "aud": AUDIENCE,
            "iat": NOW,
            "exp": NOW + 600,
            **claims,
        }
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(
            body, self.key, algorithm=self.algorithm, headers={"typ": "at+jwt", "kid": self.kid, **(headers or {})}
        )


def proof(key: SigningKey, token: str, transcript: bytes, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    body = {
        "jti": "0123456789abcdef",
        "htm": "POST",
        "htu": "https://gateway.example/v1/sessions",
        "iat": NOW,
        "ath": encoded(hashlib.sha256(token.encode()).digest()),
        "nonce": encoded(transcript),
        **claims,
    }
    algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "EdDSA"
    return jwt.encode(
        {name: value for name, value in body.items() if value is not None},
        key,
        algorithm=algorithm,
        headers={"typ": "dpop+jwt", "jwk": public_jwk(key), **(headers or {})},
    )
