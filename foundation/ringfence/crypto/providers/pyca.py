"""The first provider: `cryptography`, which brings its own OpenSSL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ringfence.crypto.offers import Family, Offer, Standing
from ringfence.crypto.ports import Kem, Signature
from ringfence.crypto.providers.pyca_kems import DhKemX25519, MlKem768, XWing
from ringfence.crypto.providers.pyca_signatures import CompositeMlDsa65Ed25519, Ed25519, MlDsa65
from ringfence.crypto.providers.recent_keys import RecentKeys

_KEMS: Final[Sequence[Kem]] = (MlKem768(), DhKemX25519(), XWing(), XWing("MLKEM768-X25519"))


def _signatures() -> Sequence[Signature]:
    ed25519, mldsa = Ed25519(), MlDsa65(RecentKeys())
    return ed25519, mldsa, CompositeMlDsa65Ed25519(mldsa, ed25519)


@dataclass(frozen=True, slots=True)
class Pyca:
    """ML-KEM, X25519, X-Wing, Ed25519, ML-DSA and the composite; always there, for Ringfence depends on it."""

    name: str = "cryptography"
    offers: Sequence[Offer] = (
        Offer("ML-KEM-768", Family.KEM, "FIPS 203", Standing.STANDARD),
        Offer("X25519", Family.KEM, "RFC 9180 section 4.1, RFC 7748", Standing.STANDARD),
        Offer("X-Wing", Family.KEM, "draft-connolly-cfrg-xwing-kem", Standing.DRAFT),
        Offer("MLKEM768-X25519", Family.KEM, "draft-ietf-hpke-pq (0x647a)", Standing.DRAFT),
        Offer("Ed25519", Family.SIGNATURE, "RFC 8032", Standing.STANDARD),
        Offer("ML-DSA-65", Family.SIGNATURE, "FIPS 204", Standing.STANDARD),
        Offer("ML-DSA-65-Ed25519", Family.SIGNATURE, "draft-ietf-lamps-pq-composite-sigs", Standing.DRAFT),
    )
    signatures: Sequence[Signature] = field(default_factory=_signatures, repr=False, compare=False)

    def absence(self, name: str) -> str:  # noqa: ARG002 - the port's
        return ""

    def kem(self, name: str) -> Kem:
        return next(algorithm for algorithm in _KEMS if algorithm.name == name)

    def signature(self, name: str) -> Signature:
        return next(algorithm for algorithm in self.signatures if algorithm.name == name)
