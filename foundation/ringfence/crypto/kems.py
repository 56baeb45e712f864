"""Key encapsulation by name: ML-KEM-768, X25519, their hybrids, and BIKE as an additional share."""

from __future__ import annotations

from typing import Literal, overload

from ringfence.crypto.combiner import AdditionalShareKem
from ringfence.crypto.offers import Family
from ringfence.crypto.ports import Kem
from ringfence.crypto.providers import provider_of

__all__ = ["AdditionalShareKem", "AdditionalShareKemName", "Kem", "KemName", "kem"]

KemName = Literal["ML-KEM-768", "X25519", "X-Wing", "MLKEM768-X25519"]
AdditionalShareKemName = Literal["BIKE-L1", "BIKE-L3", "BIKE-L5"]


@overload
def kem(name: KemName) -> Kem: ...


@overload
def kem(name: AdditionalShareKemName) -> AdditionalShareKem: ...


@overload
def kem(name: str) -> Kem | AdditionalShareKem: ...


def kem(name: str) -> Kem | AdditionalShareKem:
    """The KEM called `name`, from the first provider that can give it.

    BIKE's secrets are `AdditionalShare` values, whoever provides it. Raises `crypto.algorithm_unknown` and
    `crypto.provider_absent`.
    """
    return provider_of(name, Family.KEM).kem(name)
