"""The provider of SLH-DSA: `pqcrypto`, whose code is RustCrypto's. It holds the interpreter's lock while it signs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.crypto.errors import ALGORITHM_UNKNOWN, CryptoError
from ringfence.crypto.offers import Offer
from ringfence.crypto.ports import Kem, Signature
from ringfence.crypto.slhdsa import FORMS, OFFERS, SlhDsa


@dataclass(frozen=True, slots=True)
class Pqcrypto:
    """SLH-DSA in both forms. Its many other algorithms are not used: those are slower than `cryptography`'s."""

    name: str = "pqcrypto"
    offers: Sequence[Offer] = OFFERS

    def absence(self, name: str) -> str:  # noqa: ARG002 - the port's
        return ""

    def kem(self, name: str) -> Kem:
        raise CryptoError(ALGORITHM_UNKNOWN, f"pqcrypto is not used for the KEM {name!r}.")

    def signature(self, name: str) -> Signature:
        form = next(form for form in FORMS if form.name == name)
        return SlhDsa(form, _Primitive(importlib.import_module("pqcrypto.sign." + _module(name))))


def _module(name: str) -> str:
    return name.lower().replace("-", "_")


@dataclass(frozen=True, slots=True)
class _Primitive:
    # A module that the library makes while it is imported: no type checker sees what is in it.
    library: Any

    def generate(self) -> tuple[bytes, bytes]:
        public, private = self.library.keygen()
        return public, private

    def sign(self, private: bytes, message: bytes, context: bytes) -> bytes:
        signature: bytes = self.library.sign(private, message, context)
        return signature

    def holds(self, public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
        try:
            self.library.verify(public, message, signature, context)
        except ValueError:  # InvalidSignatureError is one
            return False
        return True
