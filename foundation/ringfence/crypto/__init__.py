"""Cryptography by name over plain bytes: KEMs, HPKE, signatures, AEADs, hashes; see `ringfence crypto list`."""

from __future__ import annotations

from ringfence.crypto.aeads import Aead, aead
from ringfence.crypto.combiner import AdditionalShare, AdditionalShareKem
from ringfence.crypto.errors import CryptoError
from ringfence.crypto.hpke_suites import Hpke, hpke
from ringfence.crypto.identity import COMPOSITE, Signer, key_id
from ringfence.crypto.kems import Kem, kem
from ringfence.crypto.signatures import Signature, signature
from ringfence.crypto.symmetric import blake3_digest, digest, mac, seal, unseal, verify_mac

__all__ = [
    "COMPOSITE",
    "AdditionalShare",
    "AdditionalShareKem",
    "Aead",
    "CryptoError",
    "Hpke",
    "Kem",
    "Signature",
    "Signer",
    "aead",
    "blake3_digest",
    "digest",
    "hpke",
    "kem",
    "key_id",
    "mac",
    "seal",
    "signature",
    "unseal",
    "verify_mac",
]
