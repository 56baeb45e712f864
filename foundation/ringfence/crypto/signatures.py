"""Signatures by name: Ed25519, ML-DSA-65, their composite, and SLH-DSA."""

from __future__ import annotations

from ringfence.crypto.offers import Family
from ringfence.crypto.ports import Signature
from ringfence.crypto.providers import provider_of

__all__ = ["Signature", "signature"]


def signature(name: str) -> Signature:
    """The signature algorithm called `name`, from the first provider that can give it.

    Raises `crypto.algorithm_unknown` and `crypto.provider_absent`.
    """
    return provider_of(name, Family.SIGNATURE).signature(name)
