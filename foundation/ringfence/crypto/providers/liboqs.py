"""The optional provider: liboqs, where an administrator installed it, for BIKE and for second opinions.

Every length and every encoding is checked here before liboqs sees it: it reads as many bytes as it expects, and
positions out of a private key unchecked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ringfence.crypto import bike
from ringfence.crypto.combiner import AdditionalShare, AdditionalShareKem
from ringfence.crypto.errors import KEY_INVALID, CryptoError
from ringfence.crypto.offers import Family, Offer, Standing
from ringfence.crypto.ports import Kem, Signature
from ringfence.crypto.sizes import MLKEM_CIPHERTEXT, MLKEM_PRIVATE, MLKEM_PUBLIC, sized, sized_ciphertext
from ringfence.crypto.slhdsa import FORMS, OFFERS, SlhDsa

if TYPE_CHECKING:
    from ringfence.crypto.providers.liboqs_probe import Probe

_MLKEM: Final = "ML-KEM-768"


def _installed() -> Probe:
    # Here, because it takes longer to import than all the rest of the cryptography, and few processes ask for BIKE.
    from ringfence.crypto.providers.liboqs_probe import installed

    return installed()


@dataclass(frozen=True, slots=True)
class Liboqs:
    """BIKE, ML-KEM-768 and SLH-DSA. Its ML-DSA is left out: it has no seeds, so its private keys are others."""

    probe: Callable[[], Probe] = _installed
    name: str = "liboqs"
    offers: Sequence[Offer] = (*bike.OFFERS, Offer(_MLKEM, Family.KEM, "FIPS 203", Standing.STANDARD), *OFFERS)

    def absence(self, name: str) -> str:
        probe = self.probe()
        if probe.absence:
            return probe.absence
        native = _native(name)
        enabled = probe.module.is_sig_enabled(native) if native != name else probe.module.is_kem_enabled(native)
        return "" if enabled else f"the installed liboqs was built without {native}"

    def kem(self, name: str) -> Kem | AdditionalShareKem:
        module = self.probe().module
        return OqsMlKem768(module) if name == _MLKEM else OqsBike(bike.level(name), module)

    def signature(self, name: str) -> Signature:
        form = next(form for form in FORMS if form.name == name)
        return SlhDsa(form, _SlhDsaPrimitive(_native(name), self.probe().module))


def _native(name: str) -> str:
    """liboqs' name of an algorithm; it differs for the signatures alone."""
    signature = name.removeprefix("SLH-DSA-")
    return name if signature == name else "SLH_DSA_PURE_" + signature.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class OqsBike:
    """One level of BIKE; its secrets can only enter the combiner, as those of our own implementation."""

    level: bike.Parameters
    module: Any = field(repr=False)

    @property
    def name(self) -> str:
        return self.level.name

    def generate(self) -> tuple[bytes, bytes]:
        with self.module.KeyEncapsulation(self.name) as kem:
            return kem.generate_keypair(), kem.export_secret_key()

    def encapsulate(self, public: bytes) -> tuple[bytes, AdditionalShare]:
        bike.public_polynomial(self.level, public)
        with self.module.KeyEncapsulation(self.name) as kem:
            ciphertext, secret = kem.encap_secret(public)
            return ciphertext, AdditionalShare(self.name, secret)

    def decapsulate(self, private: bytes, ciphertext: bytes) -> AdditionalShare:
        bike.PrivateKey.decode(self.level, private)
        bike.ciphertext_polynomial(self.level, ciphertext)
        with self.module.KeyEncapsulation(self.name, private) as kem:
            return AdditionalShare(self.name, kem.decap_secret(ciphertext))


@dataclass(frozen=True, slots=True)
class OqsMlKem768:
    """ML-KEM-768 with the 64-byte seed as private key, as `cryptography` has it."""

    module: Any = field(repr=False)
    name: str = _MLKEM

    def generate(self) -> tuple[bytes, bytes]:
        seed = secrets.token_bytes(MLKEM_PRIVATE)
        with self.module.KeyEncapsulation(self.name) as kem:
            return kem.generate_keypair_seed(seed), seed

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        return self.encapsulation_key(public).encapsulate()

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        return self.decapsulation_key(private).decapsulate(ciphertext)

    def encapsulation_key(self, public: bytes) -> OqsEncapsulationKey:
        return OqsEncapsulationKey(self.module, sized(public, MLKEM_PUBLIC, f"{self.name} public key"))

    def decapsulation_key(self, private: bytes) -> OqsDecapsulationKey:
        return OqsDecapsulationKey(self.module, sized(private, MLKEM_PRIVATE, f"{self.name} private key"))


@dataclass(frozen=True, slots=True)
class OqsEncapsulationKey:
    """A public key of the right length; liboqs checks its modulus when it is used."""

    module: Any = field(repr=False)
    public: bytes

    def encapsulate(self) -> tuple[bytes, bytes]:
        with self.module.KeyEncapsulation(_MLKEM) as kem:
            try:
                ciphertext, secret = kem.encap_secret(self.public)
            except RuntimeError:
                raise CryptoError(KEY_INVALID, "The ML-KEM-768 public key is not canonical.") from None
            return ciphertext, secret


@dataclass(frozen=True, slots=True)
class OqsDecapsulationKey:
    """A seed; liboqs expands it anew for every ciphertext."""

    module: Any = field(repr=False)
    seed: bytes = field(repr=False)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        sized_ciphertext(ciphertext, MLKEM_CIPHERTEXT)
        with self.module.KeyEncapsulation(_MLKEM) as kem:
            kem.generate_keypair_seed(self.seed)
            secret: bytes = kem.decap_secret(ciphertext)
            return secret


@dataclass(frozen=True, slots=True)
class _SlhDsaPrimitive:
    native: str
    module: Any = field(repr=False)

    def generate(self) -> tuple[bytes, bytes]:
        with self.module.Signature(self.native) as algorithm:
            return algorithm.generate_keypair(), algorithm.export_secret_key()

    def sign(self, private: bytes, message: bytes, context: bytes) -> bytes:
        with self.module.Signature(self.native, private) as algorithm:
            signature: bytes = algorithm.sign_with_ctx_str(message, context)
            return signature

    def holds(self, public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
        with self.module.Signature(self.native) as algorithm:
            holds: bool = algorithm.verify_with_ctx_str(message, signature, context, public)
            return holds
