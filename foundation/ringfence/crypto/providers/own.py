"""The last provider: Ringfence's own BIKE, experimental, for where no administrator has installed liboqs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.crypto import bike
from ringfence.crypto.combiner import AdditionalShare, AdditionalShareKem
from ringfence.crypto.errors import ALGORITHM_UNKNOWN, CryptoError
from ringfence.crypto.offers import Offer
from ringfence.crypto.ports import Signature


@dataclass(frozen=True, slots=True)
class Own:
    """BIKE-L1, -L3 and -L5."""

    name: str = "ringfence"
    offers: Sequence[Offer] = bike.OFFERS

    def absence(self, name: str) -> str:  # noqa: ARG002 - the port's
        return ""

    def kem(self, name: str) -> AdditionalShareKem:
        return OwnBike(bike.level(name))

    def signature(self, name: str) -> Signature:
        raise CryptoError(ALGORITHM_UNKNOWN, f"Ringfence has no implementation of the signature {name!r}.")


@dataclass(frozen=True, slots=True)
class OwnBike:
    """One level; its secrets can only enter the combiner."""

    level: bike.Parameters

    @property
    def name(self) -> str:
        return self.level.name

    def generate(self) -> tuple[bytes, bytes]:
        key = bike.generate(self.level, secrets.token_bytes(bike.SEED_SIZE), secrets.token_bytes(bike.SEED_SIZE))
        return key.public, key.encode()

    def encapsulate(self, public: bytes) -> tuple[bytes, AdditionalShare]:
        ciphertext, secret = bike.encapsulate(self.level, public, secrets.token_bytes(bike.SEED_SIZE))
        return ciphertext, AdditionalShare(self.name, secret)

    def decapsulate(self, private: bytes, ciphertext: bytes) -> AdditionalShare:
        key = bike.PrivateKey.decode(self.level, private)
        return AdditionalShare(self.name, bike.decapsulate(key, ciphertext))
