"""The verifier: appraises evidence against reference values, purely, and without a TPM.

Each check that fails raises `AttestationError` with its own code. The order matters: nothing of the quote is read
before its signature holds under a pinned AK whose attributes prove that only a TPM's own quotes can carry it.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ringfence.attestation import errors
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.evidence import Evidence, NoEvidence, Pcr, TpmEvidence, digest, qualifying_data
from ringfence.attestation.references import ReferenceValues, ak_name
from ringfence.attestation.tpm_structures import (
    P256_SIZE,
    TPM_ALG_ECDSA,
    TPM_ALG_SHA256,
    TPM_ECC_NIST_P256,
    TPM_RH_ENDORSEMENT,
    EccPublic,
    ObjectAttributes,
    Quote,
    parse_public,
    parse_quote,
    parse_signature,
)
from ringfence.crypto import key_id

# Firmware, its configuration, option ROMs, boot loader and Secure Boot state: TCG PC Client Platform Firmware
# Profile, section 3.3.4.
BOOT_PCRS = tuple(range(8))
_REQUIRED = (
    ObjectAttributes.FIXED_TPM
    | ObjectAttributes.FIXED_PARENT
    | ObjectAttributes.SENSITIVE_DATA_ORIGIN
    | ObjectAttributes.RESTRICTED
    | ObjectAttributes.SIGN
)
_FORBIDDEN = ObjectAttributes.DECRYPT


class Status(enum.StrEnum):
    """The tier of an attestation result (draft-ietf-rats-ar4si, trustworthiness tiers)."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    NONE = "none"
    CONTRAINDICATED = "contraindicated"

    @property
    def score(self) -> int:
        """The trust score, 0 to 100, of a result with this status."""
        return _SCORES[self]


_SCORES = {Status.AFFIRMING: 90, Status.WARNING: 60, Status.NONE: 20, Status.CONTRAINDICATED: 0}


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What a verifier concludes from evidence that passed every check; `appraised_at` in seconds since the epoch.

    `quote` holds what the TPM said of itself (reset and restart counts, clock, firmware); None without a TPM.
    """

    agent_key: bytes
    status: Status
    reasons: tuple[str, ...]
    evidence_digest: str
    appraised_at: int
    quote: Quote | None


def appraise(evidence: Evidence, *, nonce: bytes, agent_key: bytes, references: ReferenceValues, now: int) -> Appraisal:
    """Appraises evidence that answers `nonce` for the host whose agent signs with `agent_key`.

    Raises `AttestationError` with the code of the first check that fails.
    """
    expected_binding = qualifying_data(nonce, agent_key)
    agent = key_id(agent_key)
    if agent not in references.agents:
        raise AttestationError(
            errors.AGENT_UNKNOWN,
            f"No reference value names the agent {agent}.",
            field="agent_key",
            hint="Pin the agent's key before it is appraised; nothing is trusted on first use.",
        )
    if evidence.nonce != nonce:
        raise AttestationError(
            errors.NONCE_MISMATCH,
            "The evidence answers another nonce: it is stale or replayed.",
            field="nonce",
            hint="Ask for fresh evidence.",
        )
    if evidence.agent_key_id != agent:
        raise AttestationError(
            errors.AGENT_KEY_MISMATCH, f"The evidence was made for another agent, not for {agent}.", field="agent_key"
        )
    if isinstance(evidence, NoEvidence):
        return Appraisal(
            agent_key=agent_key,
            status=Status.NONE,
            reasons=(f"The host is not attested: {evidence.reason}",),
            evidence_digest=digest(evidence),
            appraised_at=now,
            quote=None,
        )
    quote = _check_quote(evidence, references.agents[agent], expected_binding)
    _check_pcrs(evidence.pcrs, quote)
    status, reasons = _compare(evidence.pcrs, references)
    return Appraisal(
        agent_key=agent_key,
        status=status,
        reasons=("The quote is signed by the AK pinned for this agent.", *reasons),
        evidence_digest=digest(evidence),
        appraised_at=now,
        quote=quote,
    )


def _check_quote(evidence: TpmEvidence, pinned: frozenset[str], expected_binding: bytes) -> Quote:
    name = ak_name(evidence.ak_public)
    if name not in pinned:
        raise AttestationError(
            errors.AK_UNKNOWN,
            f"The AK {name} is not pinned for this agent.",
            field="ak_public",
            hint="Read the AK on the host itself and pin it; a replaced TPM has another one.",
        )
    ak = parse_public(evidence.ak_public)
    _check_ak(ak)
    _check_signature(ak, evidence)
    quote = parse_quote(evidence.quote)
    if quote.qualified_signer != _qualified_name(evidence.ak_public):
        raise AttestationError(
            errors.AK_HIERARCHY,
            "The AK is not a primary key of the endorsement hierarchy, so the TPM hides its reset counters.",
            field="quote",
            hint="Create the AK under the endorsement hierarchy.",
        )
    if quote.extra_data != expected_binding:
        raise AttestationError(
            errors.QUOTE_UNBOUND,
            "The TPM quoted another nonce or another agent's key: the quote is replayed or borrowed.",
            field="quote",
            hint="Ask for fresh evidence.",
        )
    return quote


def _check_ak(ak: EccPublic) -> None:
    if ak.attributes & _REQUIRED != _REQUIRED or ak.attributes & _FORBIDDEN:
        raise AttestationError(
            errors.AK_ATTRIBUTES,
            f"The AK's attributes {ak.attributes:#010x} are not those of a restricted signing key born in its TPM, "
            "so it may have signed a forged quote.",
            field="ak_public",
            hint="Pin a key with fixedTPM, fixedParent, sensitiveDataOrigin, restricted and sign, without decrypt.",
        )
    algorithms = (ak.name_algorithm, ak.scheme, ak.scheme_hash, ak.curve)
    if algorithms != (TPM_ALG_SHA256, TPM_ALG_ECDSA, TPM_ALG_SHA256, TPM_ECC_NIST_P256):
        raise AttestationError(
            errors.AK_ALGORITHM, "The AK is not an ECDSA key over P-256 with SHA-256.", field="ak_public"
        )


def _check_signature(ak: EccPublic, evidence: TpmEvidence) -> None:
    r, s = parse_signature(evidence.signature)
    if len(ak.x) > P256_SIZE or len(ak.y) > P256_SIZE:
        raise AttestationError(errors.AK_ALGORITHM, "The AK's point does not fit P-256.", field="ak_public")
    point = ec.EllipticCurvePublicNumbers(int.from_bytes(ak.x, "big"), int.from_bytes(ak.y, "big"), ec.SECP256R1())
    try:
        public = point.public_key()
    except ValueError:
        raise AttestationError(errors.AK_ALGORITHM, "The AK's point is not on P-256.", field="ak_public") from None
    try:
        public.verify(encode_dss_signature(r, s), evidence.quote, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise AttestationError(
            errors.SIGNATURE_INVALID, "The quote's signature does not hold under the pinned AK.", field="signature"
        ) from None


def _qualified_name(ak_public: bytes) -> bytes:
    """The qualified name of a primary key of the endorsement hierarchy (TPM 2.0 Library, Part 1, "Names")."""
    algorithm = TPM_ALG_SHA256.to_bytes(2, "big")
    name = algorithm + hashlib.sha256(ak_public).digest()
    return algorithm + hashlib.sha256(TPM_RH_ENDORSEMENT.to_bytes(4, "big") + name).digest()


def _check_pcrs(pcrs: tuple[Pcr, ...], quote: Quote) -> None:
    selected = [selection for selection in quote.selections if selection.pcrs]
    if not selected:
        raise AttestationError(
            errors.PCR_SELECTION_EMPTY,
            "The quote covers no PCR at all, as a TPM does whose SHA-256 bank is not allocated.",
            field="quote",
            hint="Allocate the SHA-256 bank in the firmware's settings.",
        )
    if len(selected) != 1 or selected[0].bank != TPM_ALG_SHA256:
        raise AttestationError(errors.PCR_BANK, "The quote does not cover the SHA-256 bank alone.", field="quote")
    quoted = selected[0].pcrs
    missing = [index for index in BOOT_PCRS if index not in quoted]
    if missing:
        raise AttestationError(
            errors.PCR_TOO_FEW,
            f"The quote leaves out PCR {', '.join(map(str, missing))}, which must be covered.",
            field="quote",
        )
    composite = hashlib.sha256(b"".join(pcr.value for pcr in pcrs)).digest()
    if tuple(pcr.index for pcr in pcrs) != quoted or composite != quote.pcr_digest:
        raise AttestationError(
            errors.PCR_DIGEST, "The PCR values in the evidence are not the ones that the TPM quoted.", field="pcrs"
        )


def _compare(pcrs: tuple[Pcr, ...], references: ReferenceValues) -> tuple[Status, tuple[str, ...]]:
    values = {pcr.index: pcr.value.hex() for pcr in pcrs}
    for index, allowed in sorted(references.pcrs.items()):
        if index not in values:
            raise AttestationError(
                errors.PCR_TOO_FEW, f"The quote leaves out PCR {index}, which has reference values.", field="pcrs"
            )
        if values[index] not in allowed:
            raise AttestationError(
                errors.PCR_UNEXPECTED,
                f"PCR {index} is {values[index]}, which no reference value allows.",
                field=f"pcrs[{index}]",
                hint="If this boot is a known update, add its value to the reference values.",
            )
    uncovered = [index for index in BOOT_PCRS if index not in references.pcrs]
    if uncovered:
        return Status.WARNING, (f"No reference value covers PCR {', '.join(map(str, uncovered))}.",)
    return Status.AFFIRMING, ("Every boot PCR has a value that the reference values allow.",)
