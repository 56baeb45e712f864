"""A small strict parser for the three TPM structures that a verifier reads, over plain bytes and without any TSS.

Source: TPM 2.0 Library Specification, Part 2: Structures. Every structure must be consumed to its last byte; anything
else raises `AttestationError` with `attestation.malformed` and the name of the structure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ringfence.attestation.errors import AK_ALGORITHM, MALFORMED, NOT_A_QUOTE, AttestationError

TPM_GENERATED_VALUE = 0xFF544347  # section 6.2
TPM_ST_ATTEST_QUOTE = 0x8018  # section 6.9
TPM_RH_ENDORSEMENT = 0x4000000B  # section 7.4
TPM_ALG_SHA256 = 0x000B  # section 6.3
TPM_ALG_NULL = 0x0010
TPM_ALG_ECDSA = 0x0018
TPM_ALG_ECC = 0x0023
TPM_ECC_NIST_P256 = 0x0003  # section 6.4
P256_SIZE = 32
MAX_BANKS = 16


class ObjectAttributes(enum.IntFlag):
    """TPMA_OBJECT, section 8.3; only the bits that a verifier decides by."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """TPMS_PCR_SELECTION, section 10.6.2: a bank and the PCRs chosen in it, ascending."""

    bank: int
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quote:
    """TPMS_ATTEST of a quote, section 10.12.12. `clock` is in milliseconds since the TPM was last cleared."""

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    clock_safe: bool
    firmware_version: int
    selections: tuple[PcrSelection, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class EccPublic:
    """TPMT_PUBLIC of an ECC key, section 12.2.4; `x` and `y` are the affine coordinates, big-endian."""

    name_algorithm: int
    attributes: int
    scheme: int
    scheme_hash: int
    curve: int
    x: bytes
    y: bytes


class _Reader:
    """Big-endian fields of one structure, front to back."""

    def __init__(self, encoded: bytes, structure: str) -> None:
        self._encoded = encoded
        self._structure = structure
        self._at = 0

    def malformed(self, why: str) -> AttestationError:
        return AttestationError(MALFORMED, f"The {self._structure} cannot be read: {why}.", field=self._structure)

    def take(self, size: int) -> bytes:
        field = self._encoded[self._at : self._at + size]
        if len(field) != size:
            raise self.malformed("it is cut short")
        self._at += size
        return field

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self, limit: int) -> bytes:
        """A TPM2B: a 16-bit size and that many bytes."""
        size = self.number(2)
        if size > limit:
            raise self.malformed(f"a field of {size} bytes is longer than {limit}")
        return self.take(size)

    def end(self) -> None:
        if self._at != len(self._encoded):
            raise self.malformed(f"{len(self._encoded) - self._at} bytes follow it")


def parse_quote(encoded: bytes) -> Quote:
    """Reads a TPMS_ATTEST; raises `attestation.not_a_quote` for another magic or another type of attestation."""
    reader = _Reader(encoded, "TPMS_ATTEST")
    magic = reader.number(4)
    if magic != TPM_GENERATED_VALUE:
        raise AttestationError(
            NOT_A_QUOTE, f"The attestation's magic is {magic:#010x}: no TPM made this structure.", field="magic"
        )
    kind = reader.number(2)
    if kind != TPM_ST_ATTEST_QUOTE:
        raise AttestationError(NOT_A_QUOTE, f"The attestation is of type {kind:#06x}, not a quote.", field="type")
    qualified_signer = reader.sized(68)
    extra_data = reader.sized(66)
    clock, reset_count, restart_count = reader.number(8), reader.number(4), reader.number(4)
    safe = reader.number(1)
    if safe > 1:
        raise reader.malformed(f"a TPMI_YES_NO is {safe}")
    firmware_version = reader.number(8)
    banks = reader.number(4)
    if banks > MAX_BANKS:
        raise reader.malformed(f"it selects {banks} banks")
    selections = tuple(_selection(reader) for _ in range(banks))
    pcr_digest = reader.sized(64)
    reader.end()
    return Quote(
        qualified_signer=qualified_signer,
        extra_data=extra_data,
        clock=clock,
        reset_count=reset_count,
        restart_count=restart_count,
        clock_safe=bool(safe),
        firmware_version=firmware_version,
        selections=selections,
        pcr_digest=pcr_digest,
    )


def _selection(reader: _Reader) -> PcrSelection:
    bank = reader.number(2)
    bitmap = int.from_bytes(reader.take(reader.number(1)), "little")
    return PcrSelection(bank, tuple(index for index in range(bitmap.bit_length()) if bitmap >> index & 1))


def parse_public(encoded: bytes) -> EccPublic:
    """Reads a TPMT_PUBLIC; raises `attestation.ak_algorithm` for a key that is not ECC."""
    reader = _Reader(encoded, "TPMT_PUBLIC")
    kind = reader.number(2)
    if kind != TPM_ALG_ECC:
        raise AttestationError(AK_ALGORITHM, f"The AK is of type {kind:#06x}, not an ECC key.", field="ak_public")
    name_algorithm, attributes = reader.number(2), reader.number(4)
    reader.sized(64)  # the authorisation policy: who may use the key, not what it vouches for
    if reader.number(2) != TPM_ALG_NULL:
        reader.take(4)  # key size and mode of a storage key's cipher
    scheme = reader.number(2)
    scheme_hash = TPM_ALG_NULL if scheme == TPM_ALG_NULL else reader.number(2)
    curve = reader.number(2)
    if reader.number(2) != TPM_ALG_NULL:
        reader.take(2)  # the hash of a key-derivation scheme
    x, y = reader.sized(128), reader.sized(128)
    reader.end()
    return EccPublic(name_algorithm, attributes, scheme, scheme_hash, curve, x, y)


def parse_signature(encoded: bytes) -> tuple[int, int]:
    """Reads a TPMT_SIGNATURE, `(r, s)`; raises `attestation.ak_algorithm` unless it is ECDSA with SHA-256."""
    reader = _Reader(encoded, "TPMT_SIGNATURE")
    scheme, hash_algorithm = reader.number(2), reader.number(2)
    if (scheme, hash_algorithm) != (TPM_ALG_ECDSA, TPM_ALG_SHA256):
        raise AttestationError(
            AK_ALGORITHM,
            f"The quote is signed with scheme {scheme:#06x} and hash {hash_algorithm:#06x}, not ECDSA with SHA-256.",
            field="signature",
        )
    r, s = reader.sized(P256_SIZE), reader.sized(P256_SIZE)
    reader.end()
    return int.from_bytes(r, "big"), int.from_bytes(s, "big")
