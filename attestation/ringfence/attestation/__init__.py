"""Attestation: evidence from a TPM, a verifier that needs none, and attestation results as EAR."""

from __future__ import annotations

from ringfence.attestation.address import parse_address
from ringfence.attestation.attester import Attester, NoTpmAttester, TpmAttester, discover_tcti, read_ak
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.evidence import Evidence, NoEvidence, TpmEvidence
from ringfence.attestation.references import ReferenceValues, ak_name
from ringfence.attestation.result import AttestationResult, conclude
from ringfence.attestation.verifier import Appraisal, Status, appraise

__all__ = [
    "Appraisal",
    "AttestationError",
    "AttestationResult",
    "Attester",
    "Evidence",
    "NoEvidence",
    "NoTpmAttester",
    "ReferenceValues",
    "Status",
    "TpmAttester",
    "TpmEvidence",
    "ak_name",
    "appraise",
    "conclude",
    "discover_tcti",
    "parse_address",
    "read_ak",
]
