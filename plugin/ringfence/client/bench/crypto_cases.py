"""What `ringfence bench crypto` times: operations of ours, each beside the provider's calls that it comes down to."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, cast, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from ringfence.client.bench.crypto import FIRST_USE
from ringfence.crypto import COMPOSITE, aead, hpke, kem, signature
from ringfence.crypto.kems import AdditionalShareKem, AdditionalShareKemName
from ringfence.crypto.providers.own import Own
from ringfence.crypto.providers.pyca_signatures import CompositeSigningKey, Ed25519SigningKey, MlDsa65, MlDsaSigningKey
from ringfence.crypto.providers.recent_keys import PLACES, RecentKeys

Call = Callable[[], object]
MESSAGE: Final = b"a decision, about as long as they are: " + bytes(461)
CONTEXT: Final = b"ringfence bench"
PAGE: Final = 64 * 1024
RETRYING: Final = 3.0
BYTES, PREPARED = "bytes", "prepared"


@dataclass(frozen=True, slots=True)
class Case:
    """One operation in one form; `raw` is what its provider is called with, or None where ours is the provider."""

    algorithm: str
    operation: str
    form: str
    ours: Call
    raw: Call | None = None
    # Of the rounds asked for, what slow operations get, or those whose time is random.
    share: float = 1.0
    # Where the provider's part of ours is timed in the same call: what the last call took of it, in microseconds.
    within: Callable[[], float] | None = None
    # Whether the times of one call and another differ by no more than what they do: those of a few rounds of
    # milliseconds differ by more, and those of ML-DSA's signatures, which try until they succeed, by a multiple.
    comparable: bool = True

    @property
    def name(self) -> str:
        return f"{self.algorithm} {self.operation}"


def kems() -> Iterator[Case]:
    """ML-KEM-768 and X25519, each over bytes and with prepared keys."""
    algorithm = kem("ML-KEM-768")
    public, private = algorithm.generate()
    ciphertext, _ = algorithm.encapsulate(public)
    ours_public, ours_private = algorithm.encapsulation_key(public), algorithm.decapsulation_key(private)
    key = MLKEM768PrivateKey.from_seed_bytes(private)
    raw_public = key.public_key()
    name = algorithm.name
    yield Case(name, "generate", BYTES, algorithm.generate, _mlkem_pair)
    yield Case(
        name,
        "encapsulate",
        BYTES,
        lambda: algorithm.encapsulate(public),
        lambda: MLKEM768PublicKey.from_public_bytes(public).encapsulate(),
    )
    yield Case(
        name,
        "decapsulate",
        BYTES,
        lambda: algorithm.decapsulate(private, ciphertext),
        lambda: MLKEM768PrivateKey.from_seed_bytes(private).decapsulate(ciphertext),
    )
    yield Case(name, "encapsulate", PREPARED, ours_public.encapsulate, raw_public.encapsulate)
    yield Case(
        name, "decapsulate", PREPARED, lambda: ours_private.decapsulate(ciphertext), lambda: key.decapsulate(ciphertext)
    )
    yield from _x25519()


def _mlkem_pair() -> tuple[bytes, bytes]:
    private = MLKEM768PrivateKey.generate()
    return private.public_key().public_bytes_raw(), private.private_bytes_raw()


def _x25519() -> Iterator[Case]:
    algorithm = kem("X25519")
    public, private = algorithm.generate()
    ciphertext, _ = algorithm.encapsulate(public)
    ours_public, ours_private = algorithm.encapsulation_key(public), algorithm.decapsulation_key(private)
    key, raw_public = X25519PrivateKey.from_private_bytes(private), X25519PublicKey.from_public_bytes(public)
    salt, info = bytes(32), bytes(96)

    def derive(shared: bytes) -> bytes:
        return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(hmac.digest(salt, shared, "sha256"))

    def encapsulate(to: X25519PublicKey) -> tuple[bytes, bytes]:
        ephemeral = X25519PrivateKey.generate()
        return ephemeral.public_key().public_bytes_raw(), derive(ephemeral.exchange(to))

    def decapsulate(by: X25519PrivateKey) -> bytes:
        return derive(by.exchange(X25519PublicKey.from_public_bytes(ciphertext)))

    def decapsulate_from_bytes() -> bytes:
        parsed = X25519PrivateKey.from_private_bytes(private)
        parsed.public_key().public_bytes_raw()
        return decapsulate(parsed)

    name = algorithm.name
    yield Case(
        name,
        "encapsulate",
        BYTES,
        lambda: algorithm.encapsulate(public),
        lambda: encapsulate(X25519PublicKey.from_public_bytes(public)),
    )
    yield Case(name, "decapsulate", BYTES, lambda: algorithm.decapsulate(private, ciphertext), decapsulate_from_bytes)
    yield Case(name, "encapsulate", PREPARED, ours_public.encapsulate, lambda: encapsulate(raw_public))
    yield Case(name, "decapsulate", PREPARED, lambda: ours_private.decapsulate(ciphertext), lambda: decapsulate(key))


def envelopes() -> Iterator[Case]:
    """HPKE MLKEM768-X25519 with AES-256-GCM."""
    suite = hpke()
    public, private = kem("MLKEM768-X25519").generate()
    sealed = suite.seal(public, MESSAGE, CONTEXT)
    sealing, opening = suite.sealing_key(public), suite.opening_key(private)
    raw = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

    def parse_private() -> MLKEM768X25519PrivateKey:
        expanded = hashlib.shake_256(private).digest(96)
        return MLKEM768X25519PrivateKey(
            MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])
        )

    def parse_public() -> MLKEM768X25519PublicKey:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:1184]), X25519PublicKey.from_public_bytes(public[1184:])
        )

    raw_public, raw_private = parse_public(), parse_private()
    name = "HPKE-MLKEM768-X25519"
    yield Case(
        name,
        "seal",
        BYTES,
        lambda: suite.seal(public, MESSAGE, CONTEXT),
        lambda: raw.encrypt(MESSAGE, parse_public(), CONTEXT),
    )
    yield Case(
        name,
        "open",
        BYTES,
        lambda: suite.open(private, sealed, CONTEXT),
        lambda: raw.decrypt(sealed, parse_private(), CONTEXT),
    )
    yield Case(
        name,
        "seal",
        PREPARED,
        lambda: sealing.seal(MESSAGE, CONTEXT),
        lambda: raw.encrypt(MESSAGE, raw_public, CONTEXT),
    )
    yield Case(
        name, "open", PREPARED, lambda: opening.open(sealed, CONTEXT), lambda: raw.decrypt(sealed, raw_private, CONTEXT)
    )


def signatures() -> Iterator[Case]:
    """Ed25519, ML-DSA-65, their composite, and SLH-DSA."""
    ed25519 = signature("Ed25519")
    public, private = ed25519.generate()
    raw_public, raw_private = Ed25519PublicKey.from_public_bytes(public), Ed25519PrivateKey.from_private_bytes(private)
    signed = ed25519.sign(private, MESSAGE)
    signing, verifying = ed25519.signing_key(private), ed25519.verifying_key(public)
    yield Case(
        "Ed25519",
        "sign",
        BYTES,
        lambda: ed25519.sign(private, MESSAGE),
        lambda: Ed25519PrivateKey.from_private_bytes(private).sign(MESSAGE),
    )
    yield Case(
        "Ed25519",
        "verify",
        BYTES,
        lambda: ed25519.verify(public, MESSAGE, signed),
        lambda: Ed25519PublicKey.from_public_bytes(public).verify(signed, MESSAGE),
    )
    yield Case("Ed25519", "sign", PREPARED, lambda: signing.sign(MESSAGE), lambda: raw_private.sign(MESSAGE))
    yield Case(
        "Ed25519",
        "verify",
        PREPARED,
        lambda: verifying.verify(MESSAGE, signed),
        lambda: raw_public.verify(signed, MESSAGE),
    )
    yield from _mldsa()
    yield from _composite()
    for name in ("SLH-DSA-SHA2-128f", "SLH-DSA-SHA2-128s"):
        yield from _slhdsa(name)


class TimedKey:
    """A provider's private key that notes how long it signs, in microseconds."""

    def __init__(self, key: MLDSA65PrivateKey | Ed25519PrivateKey) -> None:
        self._key = key
        self._took_ns = 0

    def sign(self, *arguments: bytes) -> bytes:
        """The key's own signature."""
        started = time.perf_counter_ns()
        signed = self._key.sign(*arguments)
        self._took_ns = time.perf_counter_ns() - started
        return signed

    def took_us(self) -> float:
        """How long the last signature took."""
        return self._took_ns / 1000


def _mldsa() -> Iterator[Case]:
    public, private = signature("ML-DSA-65").generate()
    raw_public, timed = MLDSA65PublicKey.from_public_bytes(public), TimedKey(MLDSA65PrivateKey.from_seed_bytes(private))
    signing = MlDsaSigningKey(cast(MLDSA65PrivateKey, timed))
    recent: RecentKeys[MlDsaSigningKey] = RecentKeys()
    recent.get(private, lambda _: signing)
    algorithm = MlDsa65(recent)
    signed = algorithm.sign(private, MESSAGE, CONTEXT)
    verifying = algorithm.verifying_key(public)
    name = algorithm.name
    took = timed.took_us
    yield Case(name, "sign", BYTES, lambda: algorithm.sign(private, MESSAGE, CONTEXT), share=RETRYING, within=took)
    yield _first_use()
    yield Case(
        name,
        "verify",
        BYTES,
        lambda: algorithm.verify(public, MESSAGE, signed, CONTEXT),
        lambda: MLDSA65PublicKey.from_public_bytes(public).verify(signed, MESSAGE, CONTEXT),
    )
    yield Case(name, "sign", PREPARED, lambda: signing.sign(MESSAGE, CONTEXT), share=RETRYING, within=took)
    yield Case(
        name,
        "verify",
        PREPARED,
        lambda: verifying.verify(MESSAGE, signed, CONTEXT),
        lambda: raw_public.verify(signed, MESSAGE, CONTEXT),
    )


def _first_use() -> Case:
    # More keys than are kept, in turn: by the time one comes back it has made room.
    algorithm = signature("ML-DSA-65")
    keys = [algorithm.generate()[1] for _ in range(2 * PLACES)]
    ours, raw = itertools.cycle(keys), itertools.cycle(keys)
    return Case(
        algorithm.name,
        "sign",
        FIRST_USE,
        lambda: algorithm.sign(next(ours), MESSAGE, CONTEXT),
        lambda: MLDSA65PrivateKey.from_seed_bytes(next(raw)).sign(MESSAGE, CONTEXT),
        RETRYING,
        comparable=False,
    )


def _composite() -> Iterator[Case]:
    public, private = COMPOSITE.generate()
    mldsa = TimedKey(MLDSA65PrivateKey.from_seed_bytes(private[:32]))
    ed25519 = TimedKey(Ed25519PrivateKey.from_private_bytes(private[32:]))
    signing = CompositeSigningKey(
        MlDsaSigningKey(cast(MLDSA65PrivateKey, mldsa)), Ed25519SigningKey(cast(Ed25519PrivateKey, ed25519))
    )
    mldsa_public = MLDSA65PublicKey.from_public_bytes(public[:1952])
    ed25519_public = Ed25519PublicKey.from_public_bytes(public[1952:])
    signed, verifying = signing.sign(MESSAGE, CONTEXT), COMPOSITE.verifying_key(public)
    prefix = b"CompositeAlgorithmSignatures2025" + b"COMPSIG-MLDSA65-Ed25519-SHA512"
    label = prefix[32:]
    # What both components sign is ours to make, so the provider is given it.
    represented = prefix + bytes([len(CONTEXT)]) + CONTEXT + hashlib.sha512(MESSAGE).digest()

    def verify() -> None:
        mldsa_public.verify(signed[:3309], represented, label)
        ed25519_public.verify(signed[3309:], represented)

    name = COMPOSITE.name
    yield Case(name, "sign", BYTES, lambda: COMPOSITE.sign(private, MESSAGE, CONTEXT), share=RETRYING)
    yield Case(name, "verify", BYTES, lambda: COMPOSITE.verify(public, MESSAGE, signed, CONTEXT))
    yield Case(
        name,
        "sign",
        PREPARED,
        lambda: signing.sign(MESSAGE, CONTEXT),
        share=RETRYING,
        within=lambda: mldsa.took_us() + ed25519.took_us(),
    )
    yield Case(name, "verify", PREPARED, lambda: verifying.verify(MESSAGE, signed, CONTEXT), verify)


def _slhdsa(name: str) -> Iterator[Case]:
    algorithm = signature(name)
    raw = importlib.import_module("pqcrypto.sign." + name.lower().replace("-", "_"))
    public, private = algorithm.generate()
    signed = algorithm.sign(private, MESSAGE, CONTEXT)
    slow = 0.01 if name.endswith("s") else 0.05
    yield Case(name, "generate", BYTES, algorithm.generate, raw.keygen, slow, comparable=False)
    yield Case(
        name,
        "sign",
        BYTES,
        lambda: algorithm.sign(private, MESSAGE, CONTEXT),
        lambda: raw.sign(private, MESSAGE, CONTEXT),
        slow,
        comparable=False,
    )
    yield Case(
        name,
        "verify",
        BYTES,
        lambda: algorithm.verify(public, MESSAGE, signed, CONTEXT),
        lambda: raw.verify(public, MESSAGE, signed, CONTEXT),
    )


def bikes() -> Iterator[Case]:
    """BIKE of the provider in use, and our own where that is another."""
    names: tuple[AdditionalShareKemName, ...] = get_args(AdditionalShareKemName)
    for name in names:
        used = kem(name)
        yield from _bike(used, "")
        own = Own().kem(name)
        if type(own) is not type(used):
            yield from _bike(own, " (own)")


def _bike(algorithm: AdditionalShareKem, which: str) -> Iterator[Case]:
    public, private = algorithm.generate()
    ciphertext, _ = algorithm.encapsulate(public)
    name = algorithm.name + which
    yield Case(name, "generate", BYTES, algorithm.generate, share=0.05)
    yield Case(name, "encapsulate", BYTES, lambda: algorithm.encapsulate(public), share=0.2)
    yield Case(name, "decapsulate", BYTES, lambda: algorithm.decapsulate(private, ciphertext), share=0.1)


def pages() -> Iterator[Case]:
    """64 KiB pages into a buffer that is there already."""
    for name, library in (("AES-256-GCM", AESGCM), ("ChaCha20-Poly1305", ChaCha20Poly1305)):
        key, nonce, associated = secrets.token_bytes(32), bytes(12), bytes(32)
        cipher, raw = aead(name).cipher(key), library(key)
        page, sealed = bytearray(secrets.token_bytes(PAGE)), bytearray(PAGE + 16)
        cipher.seal_into(nonce, page, associated, sealed)
        opened, resealed = bytearray(PAGE), bytearray(PAGE + 16)
        yield Case(
            name,
            "seal 64 KiB",
            PREPARED,
            _bound(cipher.seal_into, nonce, page, associated, resealed),
            _bound(raw.encrypt_into, nonce, page, associated, resealed),
        )
        yield Case(
            name,
            "open 64 KiB",
            PREPARED,
            _bound(cipher.open_into, nonce, sealed, associated, opened),
            _bound(raw.decrypt_into, nonce, sealed, associated, opened),
        )


def _bound(
    call: Callable[[bytes, bytearray, bytes, bytearray], int],
    nonce: bytes,
    source: bytearray,
    associated: bytes,
    out: bytearray,
) -> Call:
    return lambda: call(nonce, source, associated, out)
