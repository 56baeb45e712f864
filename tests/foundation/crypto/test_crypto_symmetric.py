"""The AEAD, the MAC and HKDF: vectors of the standards, and nothing altered passes."""

from __future__ import annotations

import pytest

from ringfence.crypto import CryptoError, digest, mac, seal, unseal, verify_mac
from ringfence.crypto.errors import CIPHERTEXT_INVALID, SIGNATURE_INVALID
from ringfence.crypto.symmetric import hkdf_expand, hkdf_extract

KEY, NONCE = bytes(range(32)), bytes(12)


def test_hkdf_agrees_with_rfc_5869() -> None:
    """RFC 5869 appendix A.1, a basic case with SHA-256."""
    extracted = hkdf_extract(bytes(range(13)), b"\x0b" * 22)
    assert extracted.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert hkdf_expand(extracted, bytes(range(0xF0, 0xFA)), 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_a_missing_salt_is_a_block_of_zeros() -> None:
    assert hkdf_extract(b"", b"secret") == hkdf_extract(bytes(32), b"secret")


def test_the_mac_agrees_with_rfc_4231() -> None:
    """RFC 4231 section 4.3, test case 2."""
    tag = mac(b"Jefe", b"what do ya want for nothing?")
    assert tag.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@pytest.mark.parametrize("tag", [b"", bytes(32), mac(KEY, b"data")[:-1], mac(KEY, b"data") + b"\0", mac(KEY, b"datb")])
def test_another_tag_is_refused(tag: bytes) -> None:
    verify_mac(KEY, b"data", mac(KEY, b"data"))
    with pytest.raises(CryptoError) as caught:
        verify_mac(KEY, b"data", tag)
    assert caught.value.code is SIGNATURE_INVALID


def test_what_was_sealed_opens_only_unchanged() -> None:
    sealed = seal(KEY, NONCE, b"plaintext", b"associated")
    assert unseal(KEY, NONCE, sealed, b"associated") == b"plaintext"
    altered = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    attempts = [
        *[(KEY, NONCE, bad, b"associated") for bad in (b"", sealed[:15], sealed[:-1], sealed + b"\0", *altered)],
        (digest(KEY), NONCE, sealed, b"associated"),
        (KEY, b"\1" + NONCE[1:], sealed, b"associated"),
        (KEY, NONCE, sealed, b"associatee"),
    ]
    for attempt in attempts:
        with pytest.raises(CryptoError) as caught:
            unseal(*attempt)
        assert caught.value.code is CIPHERTEXT_INVALID
