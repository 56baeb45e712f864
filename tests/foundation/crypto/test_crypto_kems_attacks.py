"""KEMs: both sides agree, a forged ciphertext gives nothing, and an independent HPKE agrees with every byte."""

from __future__ import annotations

import hashlib
import hmac
from typing import cast

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.crypto import CryptoError, Kem, forms
from ringfence.crypto import kem as named
from ringfence.crypto.errors import ALGORITHM_UNKNOWN, CIPHERTEXT_INVALID, KEY_INVALID


def kem(name: str) -> Kem:
    """A KEM whose secret may be a key."""
    return cast(Kem, named(name))


NAMES = ("ML-KEM-768", "X25519", "X-Wing")
SIZES = {"ML-KEM-768": (1184, 64, 1088), "X25519": (32, 32, 32), "X-Wing": (1216, 32, 1120)}
# Every u-coordinate of small order on Curve25519 and its twist, below the field's prime (RFC 7748 section 6.1).
SMALL_ORDER = (
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_get_the_same_fresh_secret(name: str) -> None:
    algorithm = kem(name)
    public, private = algorithm.generate()
    ciphertext, secret = algorithm.encapsulate(public)
    assert algorithm.decapsulate(private, ciphertext) == secret
    assert (len(public), len(private), len(ciphertext)) == SIZES[name]
    assert len(secret) == 32
    assert algorithm.encapsulate(public)[1] != secret
    assert algorithm.decapsulate(algorithm.generate()[1], ciphertext) != secret


@pytest.mark.parametrize("name", NAMES)
def test_other_lengths_are_refused(name: str) -> None:
    algorithm = kem(name)
    public, private = algorithm.generate()
    ciphertext, _ = algorithm.encapsulate(public)
    for wrong in (b"", public[:-1], public + b"\0"):
        with pytest.raises(CryptoError) as caught:
            algorithm.encapsulate(wrong)
        assert caught.value.code is KEY_INVALID
    for wrong in (b"", private[:-1], private + b"\0"):
        with pytest.raises(CryptoError) as caught:
            algorithm.decapsulate(wrong, ciphertext)
        assert caught.value.code is KEY_INVALID
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\0"):
        with pytest.raises(CryptoError) as caught:
            algorithm.decapsulate(private, wrong)
        assert caught.value.code is CIPHERTEXT_INVALID


@given(at=st.integers(0, 1119), flip=st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_a_changed_x_wing_ciphertext_gives_another_secret(at: int, flip: int) -> None:
    """Implicit rejection: no error tells the two apart, and the secret is of no use."""
    algorithm = kem("X-Wing")
    public, private = algorithm.generate()
    ciphertext, secret = algorithm.encapsulate(public)
    altered = bytearray(ciphertext)
    altered[at] ^= flip
    rejected = algorithm.decapsulate(private, bytes(altered))
    assert rejected != secret
    assert rejected == algorithm.decapsulate(private, bytes(altered))


@pytest.mark.parametrize("point", SMALL_ORDER)
@pytest.mark.parametrize("name", ["X25519", "X-Wing"])
def test_points_of_small_order_are_refused(name: str, point: bytes) -> None:
    algorithm = kem(name)
    public, private = algorithm.generate()
    ciphertext, _ = algorithm.encapsulate(public)
    with pytest.raises(CryptoError) as caught:
        algorithm.encapsulate(public[:-32] + point)
    assert caught.value.code is KEY_INVALID
    with pytest.raises(CryptoError) as caught:
        algorithm.decapsulate(private, ciphertext[:-32] + point)
    assert caught.value.code is CIPHERTEXT_INVALID


@pytest.mark.parametrize("name", ["ML-KEM-768", "X-Wing"])
def test_an_ml_kem_key_out_of_range_is_refused(name: str) -> None:
    """FIPS 203 section 7.2: every coefficient is below q, so twelve set bits are no canonical coefficient."""
    algorithm = kem(name)
    public, _ = algorithm.generate()
    with pytest.raises(CryptoError) as caught:
        algorithm.encapsulate(b"\xff\xff\xff" + public[3:])
    assert caught.value.code is KEY_INVALID


def test_x_wing_depends_on_both_components() -> None:
    """Only one of the two halves of a ciphertext taken over: the secret is another one."""
    algorithm = kem("X-Wing")
    public, private = algorithm.generate()
    one, first = algorithm.encapsulate(public)
    two, second = algorithm.encapsulate(public)
    for mixed in (one[:1088] + two[1088:], two[:1088] + one[1088:]):
        assert algorithm.decapsulate(private, mixed) not in (first, second)


def test_an_unknown_kem_is_refused() -> None:
    with pytest.raises(CryptoError) as caught:
        kem("RSA-KEM")
    assert caught.value.code is ALGORITHM_UNKNOWN
    assert "X-Wing" in caught.value.hint


@pytest.mark.parametrize("name", NAMES)
def test_hpke_of_another_implementation_opens_what_we_encapsulate(name: str) -> None:
    """RFC 9180 with the KEM's secret put through the key schedule by hand; `cryptography` only decrypts."""
    peer = _Peer(name)
    ciphertext, secret = kem(name).encapsulate(peer.public)
    key, nonce = _key_schedule(peer.kem_id, secret, b"info")
    sealed = AESGCM(key).encrypt(nonce, b"plaintext", None)
    assert peer.suite.decrypt(ciphertext + sealed, peer.key, info=b"info") == b"plaintext"


@pytest.mark.parametrize("name", NAMES)
def test_we_decapsulate_what_hpke_of_another_implementation_sealed(name: str) -> None:
    peer = _Peer(name)
    message = peer.suite.encrypt(b"plaintext", peer.key.public_key(), info=b"info")
    size = SIZES[name][2]
    secret = kem(name).decapsulate(peer.private, message[:size])
    key, nonce = _key_schedule(peer.kem_id, secret, b"info")
    assert AESGCM(key).decrypt(nonce, message[size:], None) == b"plaintext"


class _Peer:
    """The same private key in our encoding and as a key of `cryptography`'s HPKE."""

    def __init__(self, name: str) -> None:
        self.public, self.private = kem(name).generate()
        self.key: MLKEM768PrivateKey | X25519PrivateKey | hpke.MLKEM768X25519PrivateKey
        if name == "ML-KEM-768":
            self.kem_id, suite = 0x0041, hpke.KEM.MLKEM768
            self.key = MLKEM768PrivateKey.from_seed_bytes(self.private)
        elif name == "X25519":
            self.kem_id, suite = 0x0020, hpke.KEM.X25519
            self.key = X25519PrivateKey.from_private_bytes(self.private)
        else:
            assert forms.public_of("X-Wing", self.private) == self.public
            self.kem_id, suite = 0x647A, hpke.KEM.MLKEM768_X25519
            expanded = hashlib.shake_256(self.private).digest(96)
            self.key = hpke.MLKEM768X25519PrivateKey(
                MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])
            )
        self.suite = hpke.Suite(suite, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _key_schedule(kem_id: int, secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """The key and the first nonce of RFC 9180 section 5.1, mode base, HKDF-SHA256 and AES-256-GCM."""
    suite = b"HPKE-v1HPKE" + kem_id.to_bytes(2, "big") + bytes.fromhex("00010002")
    version, rest = suite[:7], suite[7:]

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), version + rest + label + material, "sha256")

    def expand(key: bytes, label: bytes, length: int) -> bytes:
        text = length.to_bytes(2, "big") + version + rest + label + context
        return hmac.digest(key, text + b"\1", "sha256")[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    prepared = extract(secret, b"secret", b"")
    return expand(prepared, b"key", 32), expand(prepared, b"base_nonce", 12)
