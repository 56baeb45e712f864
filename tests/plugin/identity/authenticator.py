"""A software authenticator: it speaks WebAuthn's two ceremonies as a browser hands them on, truthfully or as told.

A fake at the protocol's boundary: what it signs are real assertions with real keys.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fido2 import cbor

from tests.plugin.identity.certificates import p256
from tests.plugin.identity.tokens import encoded

RP_ID = "gateway.example"
ORIGIN = "https://gateway.example"
UP, UV, AT, ED = 1, 4, 64, 128


@dataclass
class Authenticator:
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey = field(default_factory=p256)
    credential: bytes = b"a credential's id"
    counter: int = 0
    rp_id: str = RP_ID
    origin: str = ORIGIN

    @property
    def cose(self) -> dict[int, Any]:
        public = self.key.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            numbers = public.public_numbers()
            return {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
        return {1: 1, 3: -8, -1: 6, -2: public.public_bytes_raw()}

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(data, ec.ECDSA(hashes.SHA256()))
        return self.key.sign(data)

    def data(self, flags: int, more: bytes = b"") -> bytes:
        return hashlib.sha256(self.rp_id.encode()).digest() + struct.pack(">BI", flags, self.counter) + more

    def client_data(self, kind: str, challenge: bytes, more: dict[str, Any]) -> bytes:
        return json.dumps({"type": kind, "challenge": encoded(challenge), "origin": self.origin, **more}).encode()

    def assertion(
        self,
        challenge: bytes,
        *,
        flags: int = UP | UV,
        handle: bytes | None = None,
        client: dict[str, Any] | None = None,
        data: bytes | None = None,
        signature: bytes | None = None,
    ) -> bytes:
        """The JSON form of the answer to `challenge`."""
        client_data = self.client_data("webauthn.get", challenge, client or {})
        signed = self.data(flags) if data is None else data
        made = self.sign(signed + hashlib.sha256(client_data).digest())
        response = {
            "clientDataJSON": encoded(client_data),
            "authenticatorData": encoded(signed),
            "signature": encoded(made if signature is None else signature),
            "userHandle": None if handle is None else encoded(handle),
        }
        answer = {"id": encoded(self.credential), "rawId": encoded(self.credential), "type": "public-key"}
        return json.dumps({**answer, "response": response, "clientExtensionResults": {}}).encode()

    def registration(
        self,
        challenge: bytes,
        *,
        flags: int = UP | UV | AT,
        form: str = "none",
        statement: dict[str, Any] | None = None,
        cose: dict[int, Any] | None = None,
    ) -> bytes:
        """The JSON form of a new credential; a "packed" statement is signed where none is given."""
        made = bytes(16) + struct.pack(">H", len(self.credential)) + self.credential + cbor.encode(cose or self.cose)
        signed = self.data(flags, made if flags & AT else b"")
        client_data = self.client_data("webauthn.create", challenge, {})
        if statement is None:
            statement = {}
            if form == "packed":
                statement = {"alg": self.cose[3], "sig": self.sign(signed + hashlib.sha256(client_data).digest())}
        return self.registered(client_data, cbor.encode({"fmt": form, "attStmt": statement, "authData": signed}))

    def registered(self, client_data: bytes, attestation: bytes) -> bytes:
        response = {"clientDataJSON": encoded(client_data), "attestationObject": encoded(attestation)}
        answer = {"id": encoded(self.credential), "type": "public-key", "response": response}
        return json.dumps(answer).encode()
