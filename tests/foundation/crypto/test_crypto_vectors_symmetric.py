"""AEADs, HKDF and BLAKE3 against vectors that nobody here wrote; each test prints how many it checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ringfence.crypto import CryptoError, aead, blake3_digest
from ringfence.crypto.symmetric import hkdf_expand, hkdf_extract

Cases = Callable[[str], Iterator[dict[str, str]]]


def checked(what: str, count: int, expected: int) -> None:
    print(f"{count} vectors checked: {what}")
    assert count == expected


def test_aes_gcm_of_nist(pyca_cases: Cases) -> None:
    count = 0
    for case in pyca_cases("ciphers/AES/GCM/gcmDecrypt256.rsp"):
        if case["ivlen"] != "96" or case["taglen"] != "128":
            continue
        cipher = aead("AES-256-GCM").cipher(bytes.fromhex(case["key"]))
        nonce, sealed, associated = (bytes.fromhex(case[name]) for name in ("iv", "ct", "aad"))
        sealed += bytes.fromhex(case["tag"])
        count += 1
        if "fail" in case:
            with pytest.raises(CryptoError):
                cipher.open(nonce, sealed, associated)
            continue
        plaintext = bytes.fromhex(case["pt"])
        assert cipher.open(nonce, sealed, associated) == plaintext
        assert cipher.seal(nonce, plaintext, associated) == sealed
    checked("AES-256-GCM, NIST's with 96-bit nonces and 128-bit tags", count, 375)


def test_chacha20_poly1305_of_openssl_and_boringssl(pyca_cases: Cases) -> None:
    names = {"openssl": ("key", "iv", "aad", "tag", "plaintext", "ciphertext")}
    names["boringssl"] = ("key", "nonce", "ad", "tag", "in", "ct")
    count = 0
    for source, fields in names.items():
        for case in pyca_cases(f"ciphers/ChaCha20Poly1305/{source}.txt"):
            key, nonce, associated, tag, plaintext, ciphertext = (octets(case[name]) for name in fields)
            cipher = aead("ChaCha20-Poly1305").cipher(key)
            count += 1
            if case.get("result"):
                with pytest.raises(CryptoError):
                    cipher.open(nonce, ciphertext + tag, associated)
                continue
            assert cipher.open(nonce, ciphertext + tag, associated) == plaintext
            assert cipher.seal(nonce, plaintext, associated) == ciphertext + tag
    checked("ChaCha20-Poly1305, OpenSSL's and BoringSSL's", count, 71)


def octets(text: str) -> bytes:
    return text.strip('"').encode() if text.startswith('"') else bytes.fromhex(text)


def test_hkdf_of_rfc_5869(pyca_cases: Cases) -> None:
    count = 0
    for case in pyca_cases("KDF/rfc-5869-HKDF-SHA256.txt"):
        secret, salt, info = (bytes.fromhex(case.get(name, "")) for name in ("ikm", "salt", "info"))
        key = hkdf_extract(salt, secret)
        assert key.hex() == case["prk"]
        assert hkdf_expand(key, info, int(case["l"])).hex() == case["okm"]
        count += 1
    checked("HKDF-SHA256, RFC 5869", count, 3)


def test_blake3_of_its_authors(own_vectors: Callable[[str], Any]) -> None:
    cases = own_vectors("blake3.json")["cases"]
    for case in cases:
        data = bytes(position % 251 for position in range(case["input_len"]))
        assert blake3_digest(data).hex() == case["hash"]
    checked("BLAKE3, its authors'", len(cases), 35)
