"""What a provider says of an algorithm: its name, what it is for, where it is defined and how firmly."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Family(enum.Enum):
    """What an algorithm is for."""

    KEM = "kem"
    SIGNATURE = "signature"
    HPKE = "hpke"
    AEAD = "aead"
    KDF = "kdf"
    MAC = "mac"
    HASH = "hash"


class Standing(enum.Enum):
    """How far an algorithm's definition has come."""

    STANDARD = "standard"
    DRAFT = "draft"
    EXPERIMENTAL = "experimental"


@dataclass(frozen=True, slots=True)
class Offer:
    """An algorithm that a provider offers; `standard` names the document and its section where one applies."""

    name: str
    family: Family
    standard: str
    standing: Standing
