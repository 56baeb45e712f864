"""Evidence: what an attester hands to a verifier, as bytes of at most 64 KiB.

Terms are those of RATS (RFC 9334). Evidence is untrusted until a verifier has appraised it: the nonce and the agent's
key id that it repeats only let a refusal say what differs; what counts is what the TPM signed.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from ringfence.attestation.errors import MALFORMED, NONCE_SIZE, TOO_LARGE, AttestationError

MAX_EVIDENCE = 64 * 1024
MIN_NONCE = 16
MAX_NONCE = 64
MAX_REASON = 200
SHA256_SIZE = 32
_QUALIFYING_LABEL = b"ringfence attestation quote v1\0"

Nonce: TypeAlias = Annotated[bytes, Meta(min_length=MIN_NONCE, max_length=MAX_NONCE)]
KeyId: TypeAlias = Annotated[str, Meta(pattern=r"^rf1[A-Za-z0-9_-]{43}$")]


class Pcr(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One platform configuration register of the SHA-256 bank."""

    index: Annotated[int, Meta(ge=0, le=23)]
    value: Annotated[bytes, Meta(min_length=SHA256_SIZE, max_length=SHA256_SIZE)]


class TpmEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="tpm"):
    """A quote of a TPM 2.0 over its boot PCRs (TPM 2.0 Library, Part 2, section 10.12 and Part 3, section 18.4).

    `quote` is a TPMS_ATTEST, `signature` a TPMT_SIGNATURE, `ak_public` a TPMT_PUBLIC, each as the TPM marshals it;
    `pcrs` are the values quoted, in ascending order.
    """

    nonce: Nonce
    agent_key_id: KeyId
    quote: Annotated[bytes, Meta(max_length=1024)]
    signature: Annotated[bytes, Meta(max_length=256)]
    ak_public: Annotated[bytes, Meta(max_length=512)]
    pcrs: Annotated[tuple[Pcr, ...], Meta(max_length=24)]


class NoEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="none"):
    """The honest statement of a host that cannot attest itself, and why it cannot."""

    nonce: Nonce
    agent_key_id: KeyId
    reason: Annotated[str, Meta(min_length=1, max_length=MAX_REASON)]


Evidence: TypeAlias = TpmEvidence | NoEvidence


def qualifying_data(nonce: bytes, agent_key: bytes) -> bytes:
    """The 32 bytes that a TPM quotes: they bind the verifier's nonce and the key that the agent signs with.

    Raises `attestation.nonce_size` unless the nonce has 16 to 64 bytes.
    """
    if not MIN_NONCE <= len(nonce) <= MAX_NONCE:
        raise AttestationError(
            NONCE_SIZE,
            f"A nonce has {MIN_NONCE} to {MAX_NONCE} bytes, this one has {len(nonce)}.",
            field="nonce",
            hint="Draw 32 fresh random bytes for each attestation.",
        )
    return hashlib.sha256(_QUALIFYING_LABEL + bytes([len(nonce)]) + nonce + agent_key).digest()


def encode(evidence: Evidence) -> bytes:
    """Evidence as JSON; `decode` gives the same value back."""
    return msgspec.json.encode(evidence)


def decode(encoded: bytes) -> Evidence:
    """The evidence in `encoded`; raises `attestation.malformed` or, beyond 64 KiB, `attestation.too_large`."""
    if len(encoded) > MAX_EVIDENCE:
        raise AttestationError(
            TOO_LARGE, f"Evidence has {len(encoded)} bytes, more than {MAX_EVIDENCE}.", field="evidence"
        )
    try:
        evidence: Evidence = msgspec.json.decode(encoded, type=Evidence)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AttestationError(MALFORMED, f"The evidence cannot be read: {error}.", field="evidence") from None
    return evidence


def digest(evidence: Evidence) -> str:
    """SHA-256 of the encoded evidence, in hex."""
    return hashlib.sha256(encode(evidence)).hexdigest()
