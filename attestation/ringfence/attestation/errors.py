"""Error codes of the attestation: every check a verifier makes, and every way a TPM can fail, has its own."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class AttestationError(RingfenceError):
    """Evidence, a result or a TPM is not what it must be."""


# Evidence that cannot be read.
MALFORMED = Code("attestation.malformed", Kind.INVALID)
TOO_LARGE = Code("attestation.too_large", Kind.TOO_LARGE)
NONCE_SIZE = Code("attestation.nonce_size", Kind.INVALID)
REFERENCES_INVALID = Code("attestation.references_invalid", Kind.INVALID)

# Evidence that a verifier refuses.
NONCE_MISMATCH = Code("attestation.nonce_mismatch", Kind.UNAUTHENTICATED)
AGENT_KEY_MISMATCH = Code("attestation.agent_key_mismatch", Kind.UNAUTHENTICATED)
AGENT_UNKNOWN = Code("attestation.agent_unknown", Kind.UNAUTHENTICATED)
AK_UNKNOWN = Code("attestation.ak_unknown", Kind.UNAUTHENTICATED)
AK_ATTRIBUTES = Code("attestation.ak_attributes", Kind.UNAUTHENTICATED)
AK_ALGORITHM = Code("attestation.ak_algorithm", Kind.UNAUTHENTICATED)
AK_HIERARCHY = Code("attestation.ak_hierarchy", Kind.UNAUTHENTICATED)
NOT_A_QUOTE = Code("attestation.not_a_quote", Kind.UNAUTHENTICATED)
SIGNATURE_INVALID = Code("attestation.signature_invalid", Kind.UNAUTHENTICATED)
QUOTE_UNBOUND = Code("attestation.quote_unbound", Kind.UNAUTHENTICATED)
PCR_BANK = Code("attestation.pcr_bank", Kind.UNAUTHENTICATED)
PCR_SELECTION_EMPTY = Code("attestation.pcr_selection_empty", Kind.UNAUTHENTICATED)
PCR_TOO_FEW = Code("attestation.pcr_too_few", Kind.UNAUTHENTICATED)
PCR_DIGEST = Code("attestation.pcr_digest", Kind.UNAUTHENTICATED)
PCR_UNEXPECTED = Code("attestation.pcr_unexpected", Kind.DENIED)

# Attestation results.
RESULT_MALFORMED = Code("attestation.result_malformed", Kind.INVALID)
RESULT_ALGORITHM = Code("attestation.result_algorithm", Kind.UNAUTHENTICATED)
RESULT_VERIFIER_UNKNOWN = Code("attestation.result_verifier_unknown", Kind.UNAUTHENTICATED)
RESULT_SIGNATURE = Code("attestation.result_signature", Kind.UNAUTHENTICATED)
RESULT_NOT_YET_VALID = Code("attestation.result_not_yet_valid", Kind.UNAUTHENTICATED)
RESULT_EXPIRED = Code("attestation.result_expired", Kind.UNAUTHENTICATED)
RESULT_KEY_MISMATCH = Code("attestation.result_key_mismatch", Kind.UNAUTHENTICATED)

# The TPM.
TPM_ADDRESS = Code("attestation.tpm_address", Kind.INVALID)
TPM_LIBRARY_MISSING = Code("attestation.tpm_library_missing", Kind.UNAVAILABLE)
TPM_MISSING = Code("attestation.tpm_missing", Kind.UNAVAILABLE)
TPM_DENIED = Code("attestation.tpm_denied", Kind.UNAVAILABLE)
TPM_BUSY = Code("attestation.tpm_busy", Kind.UNAVAILABLE)
TPM_NOT_STARTED = Code("attestation.tpm_not_started", Kind.UNAVAILABLE)
TPM_LOCKED_OUT = Code("attestation.tpm_locked_out", Kind.UNAVAILABLE)
TPM_UNREACHABLE = Code("attestation.tpm_unreachable", Kind.UNAVAILABLE)
TPM_FAILED = Code("attestation.tpm_failed", Kind.UNAVAILABLE)
TPM_FULL = Code("attestation.tpm_full", Kind.UNAVAILABLE)
TPM_OWNER = Code("attestation.tpm_owner", Kind.DENIED)
TPM_PCR_BANK = Code("attestation.tpm_pcr_bank", Kind.UNAVAILABLE)
TPM_HUNG = Code("attestation.tpm_hung", Kind.DEADLINE)

# A log's counter in the TPM.
COUNTER_EXISTS = Code("attestation.counter_exists", Kind.CONFLICT)
COUNTER_MISSING = Code("attestation.counter_missing", Kind.NOT_FOUND)
COUNTER_FOREIGN = Code("attestation.counter_foreign", Kind.DENIED)

TPM_CODES = (
    TPM_ADDRESS,
    TPM_LIBRARY_MISSING,
    TPM_MISSING,
    TPM_DENIED,
    TPM_BUSY,
    TPM_NOT_STARTED,
    TPM_LOCKED_OUT,
    TPM_UNREACHABLE,
    TPM_FAILED,
    TPM_FULL,
    TPM_OWNER,
    TPM_PCR_BANK,
    COUNTER_EXISTS,
    COUNTER_MISSING,
    COUNTER_FOREIGN,
)
