"""AEADs at their edges: key and nonce lengths, buffers of the wrong size, and what is left in them after a forgery."""

from __future__ import annotations

import mmap

import pytest

from ringfence.crypto import Aead, CryptoError, aead, blake3_digest, seal, unseal

KEY = bytes(range(32))
NONCE = bytes(12)
PAGE = b"confidential" * 100


@pytest.fixture(params=["AES-256-GCM", "ChaCha20-Poly1305"])
def algorithm(request: pytest.FixtureRequest) -> Aead:
    return aead(request.param)


def test_into_a_buffer_is_the_same_as_over_bytes(algorithm: Aead) -> None:
    cipher = algorithm.cipher(KEY)
    sealed = bytearray(len(PAGE) + 16)
    assert cipher.seal_into(NONCE, PAGE, b"page 7", sealed) == len(sealed)
    assert bytes(sealed) == cipher.seal(NONCE, PAGE, b"page 7")
    opened = bytearray(len(PAGE))
    assert cipher.open_into(NONCE, sealed, b"page 7", opened) == len(opened)
    assert opened == PAGE
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        with memoryview(memory) as view, view[: len(PAGE)] as window:
            cipher.open_into(NONCE, sealed, b"page 7", window)
        assert memory[: len(PAGE)] == PAGE


def test_a_forgery_leaves_no_plaintext_in_the_buffer(algorithm: Aead) -> None:
    cipher = algorithm.cipher(KEY)
    sealed = bytearray(cipher.seal(NONCE, PAGE, b""))
    sealed[-1] ^= 1
    out = bytearray(b"\xaa" * len(PAGE))
    with pytest.raises(CryptoError, match=r"crypto\.ciphertext_invalid"):
        cipher.open_into(NONCE, sealed, b"", out)
    assert out == bytes(len(PAGE))


def test_every_alteration_is_refused_in_the_same_words(algorithm: Aead) -> None:
    cipher = algorithm.cipher(KEY)
    sealed = cipher.seal(NONCE, PAGE, b"page 7")
    messages = set()
    for nonce, altered, associated in [
        (NONCE, sealed[:-1], b"page 7"),
        (NONCE, sealed + b"\0", b"page 7"),
        (NONCE, b"", b"page 7"),
        (NONCE, bytes([sealed[0] ^ 1]) + sealed[1:], b"page 7"),
        (NONCE, sealed, b"page 8"),
        (b"\1" + NONCE[1:], sealed, b"page 7"),
    ]:
        with pytest.raises(CryptoError) as caught:
            cipher.open(nonce, altered, associated)
        messages.add(str(caught.value))
    assert messages == {"crypto.ciphertext_invalid: The ciphertext does not hold for this key."}


def test_keys_nonces_and_buffers_of_other_lengths_are_refused(algorithm: Aead) -> None:
    for key in (b"", KEY[:16], KEY[:24], KEY + b"\0"):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            algorithm.cipher(key)
    cipher = algorithm.cipher(KEY)
    sealed = cipher.seal(NONCE, PAGE, b"")
    for nonce in (b"", NONCE[:8], bytes(16)):
        with pytest.raises(CryptoError, match=r"crypto\.nonce_invalid"):
            cipher.seal(nonce, PAGE, b"")
        with pytest.raises(CryptoError, match=r"crypto\.nonce_invalid"):
            cipher.open(nonce, sealed, b"")
    for size in (0, len(PAGE) - 1, len(PAGE) + 1, len(PAGE) + 17):
        with pytest.raises(CryptoError, match=r"crypto\.buffer_invalid"):
            cipher.seal_into(NONCE, PAGE, b"", bytearray(size))
        with pytest.raises(CryptoError, match=r"crypto\.buffer_invalid"):
            cipher.open_into(NONCE, sealed, b"", bytearray(size))


def test_a_cipher_does_not_show_its_key(algorithm: Aead) -> None:
    assert repr(algorithm.cipher(KEY)) == "Cipher()"


def test_the_short_forms_are_aes_256_gcm() -> None:
    sealed = seal(KEY, NONCE, PAGE, b"a")
    assert sealed == aead("AES-256-GCM").cipher(KEY).seal(NONCE, PAGE, b"a")
    assert unseal(KEY, NONCE, sealed, b"a") == PAGE
    with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
        seal(KEY[:16], NONCE, PAGE, b"a")


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(CryptoError, match=r"crypto\.algorithm_unknown.*AES-256-GCM, ChaCha20-Poly1305"):
        aead("AES-128-CBC")


def test_blake3_has_32_bytes() -> None:
    assert len(blake3_digest(b"")) == 32
