"""BIKE (Bit Flipping Key Encapsulation), written from its specification v5.1: experimental, for additional shares."""

from __future__ import annotations

from typing import Final

from ringfence.crypto.bike.parameters import BIKE_L1, BIKE_L3, BIKE_L5, LEVELS, SEED_SIZE, Parameters
from ringfence.crypto.bike.scheme import (
    PrivateKey,
    ciphertext_polynomial,
    decapsulate,
    encapsulate,
    generate,
    public_polynomial,
)
from ringfence.crypto.offers import Family, Offer, Standing

OFFERS: Final = tuple(
    Offer(level.name, Family.KEM, "BIKE specification v5.1", Standing.EXPERIMENTAL) for level in LEVELS
)


def level(name: str) -> Parameters:
    """The parameter set called `name`."""
    return next(parameters for parameters in LEVELS if parameters.name == name)


__all__ = [
    "BIKE_L1",
    "BIKE_L3",
    "BIKE_L5",
    "LEVELS",
    "OFFERS",
    "SEED_SIZE",
    "Parameters",
    "PrivateKey",
    "ciphertext_polynomial",
    "decapsulate",
    "encapsulate",
    "generate",
    "level",
    "public_polynomial",
]
