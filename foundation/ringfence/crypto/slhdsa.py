"""What every implementation of SLH-DSA-SHA2-128f and -128s (FIPS 205, pure mode) shares: sizes, checks and key forms.

Private keys are `SK.seed || SK.prf || PK.seed || PK.root` (64 bytes), public keys `PK.seed || PK.root` (32 bytes), as
in FIPS 205 section 9.1. Signing takes milliseconds (128s: hundreds) and verifying less than one: it is for what is
signed rarely and has to hold for long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from ringfence.crypto.offers import Family, Offer, Standing
from ringfence.crypto.sizes import short, signature_invalid, sized

PUBLIC: Final = 32
PRIVATE: Final = 64


@dataclass(frozen=True, slots=True)
class Form:
    """One parameter set: its name, and the bytes of its signature."""

    name: str
    signature: int


FORMS: Final = (Form("SLH-DSA-SHA2-128f", 17088), Form("SLH-DSA-SHA2-128s", 7856))
OFFERS: Final = tuple(Offer(form.name, Family.SIGNATURE, "FIPS 205", Standing.STANDARD) for form in FORMS)


class Primitive(Protocol):
    """A library's own operations, called with arguments whose lengths are right."""

    def generate(self) -> tuple[bytes, bytes]:
        """A fresh key pair, `(public, private)`."""
        ...

    def sign(self, private: bytes, message: bytes, context: bytes) -> bytes:
        """A hedged signature."""
        ...

    def holds(self, public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
        """Whether the signature holds."""
        ...


@dataclass(frozen=True, slots=True)
class SlhDsa:
    """SLH-DSA over a library's operations, as a `Signature`."""

    form: Form
    primitive: Primitive

    @property
    def name(self) -> str:
        return self.form.name

    def generate(self) -> tuple[bytes, bytes]:
        return self.primitive.generate()

    def public(self, private: bytes) -> bytes:
        return sized(private, PRIVATE, f"{self.name} private key")[PRIVATE - PUBLIC :]

    def sign(self, private: bytes, message: bytes, context: bytes = b"") -> bytes:
        return self.signing_key(private).sign(message, context)

    def verify(self, public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> None:
        self.verifying_key(public).verify(message, signature, context)

    def signing_key(self, private: bytes) -> SlhDsaSigningKey:
        return SlhDsaSigningKey(self.primitive, sized(private, PRIVATE, f"{self.name} private key"))

    def verifying_key(self, public: bytes) -> SlhDsaVerifyingKey:
        return SlhDsaVerifyingKey(self.form, self.primitive, sized(public, PUBLIC, f"{self.name} public key"))


@dataclass(frozen=True, slots=True)
class SlhDsaSigningKey:
    """A private key of the right length; there is nothing in it to parse."""

    primitive: Primitive
    private: bytes = field(repr=False)

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        return self.primitive.sign(self.private, message, short(context))


@dataclass(frozen=True, slots=True)
class SlhDsaVerifyingKey:
    """A public key of the right length."""

    form: Form
    primitive: Primitive
    public: bytes

    def verify(self, message: bytes, signature: bytes, context: bytes = b"") -> None:
        right_length = len(signature) == self.form.signature
        if not right_length or not self.primitive.holds(self.public, message, signature, short(context)):
            raise signature_invalid()
