"""Cryptography: KEMs, signatures, an AEAD and the handshake, over plain bytes and one provider, `cryptography`."""

from __future__ import annotations

from ringfence.crypto.errors import CryptoError
from ringfence.crypto.identity import COMPOSITE, Signer, key_id
from ringfence.crypto.kems import Kem, kem
from ringfence.crypto.signatures import Signature, signature
from ringfence.crypto.symmetric import digest, mac, seal, unseal, verify_mac

__all__ = [
    "COMPOSITE",
    "CryptoError",
    "Kem",
    "Signature",
    "Signer",
    "digest",
    "kem",
    "key_id",
    "mac",
    "seal",
    "signature",
    "unseal",
    "verify_mac",
]
