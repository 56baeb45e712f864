"""Keys as PEM, DER and JWK: against the library's own encodings and the examples that the standards print."""

from __future__ import annotations

import contextlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography_vectors import open_vector_file
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.crypto import CryptoError, signature
from ringfence.crypto.errors import ALGORITHM_UNKNOWN, FORM_INVALID, KEY_INVALID
from ringfence.crypto.forms import (
    ALGORITHMS,
    Form,
    KeyMaterial,
    export_private,
    export_public,
    import_private,
    import_public,
    public_of,
)

SIZES = {"ML-KEM-768": 64, "SLH-DSA-SHA2-128s": 64, "SLH-DSA-SHA2-128f": 64, "ML-DSA-65-Ed25519": 64}
NO_JWK = ("ML-KEM-768", "X-Wing")
LIBRARY = ("Ed25519", "X25519", "ML-DSA-65", "ML-KEM-768")


def loaded(pair: KeyMaterial) -> Ed25519PrivateKey | X25519PrivateKey | MLDSA65PrivateKey | MLKEM768PrivateKey:
    """The library's own key."""
    match pair.algorithm:
        case "Ed25519":
            return Ed25519PrivateKey.from_private_bytes(pair.private)
        case "X25519":
            return X25519PrivateKey.from_private_bytes(pair.private)
        case "ML-DSA-65":
            return MLDSA65PrivateKey.from_seed_bytes(pair.private)
        case _:
            return MLKEM768PrivateKey.from_seed_bytes(pair.private)


def key(algorithm: str, fill: int = 7) -> KeyMaterial:
    """A key pair of fixed bytes."""
    if algorithm.startswith("SLH-DSA"):
        return KeyMaterial(algorithm, *signature(algorithm).generate())
    private = bytes([fill]) * SIZES.get(algorithm, 32)
    return KeyMaterial(algorithm, public_of(algorithm, private), private)


def refused(data: bytes, *, private: bool) -> None:
    with pytest.raises(CryptoError) as caught:
        (import_private if private else import_public)(data)
    assert caught.value.code in (FORM_INVALID, KEY_INVALID)
    if len(data) > 60:
        assert data[40:60].decode("latin-1") not in str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", Form)
def test_every_key_comes_back_from_every_form_it_has(algorithm: str, form: Form) -> None:
    pair = key(algorithm)
    if form is Form.JWK and algorithm in NO_JWK:
        with pytest.raises(CryptoError, match="No standard defines a JWK"):
            export_private(pair, form)
        with pytest.raises(CryptoError, match="No standard defines a JWK"):
            export_public(algorithm, pair.public, form)
        return
    assert import_private(export_private(pair, form)) == pair
    public = export_public(algorithm, pair.public, form)
    assert import_public(public) == (algorithm, pair.public)
    refused(public, private=True)
    refused(export_private(pair, form), private=False)


@pytest.mark.parametrize("algorithm", LIBRARY)
@pytest.mark.parametrize(("form", "encoding"), [(Form.PEM, Encoding.PEM), (Form.DER, Encoding.DER)])
def test_the_bytes_are_those_of_the_library(algorithm: str, form: Form, encoding: Encoding) -> None:
    pair = key(algorithm)
    public = loaded(pair).public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    assert export_public(algorithm, pair.public, form) == public
    assert export_private(pair, form) == loaded(pair).private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())


def test_the_example_of_rfc_8410() -> None:
    """RFC 8410 section 10.3: an Ed25519 key, with and without attributes and public key, and section 10.1's SPKI."""
    plain = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
"""
    public = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
    pair = import_private(plain)
    assert ("Ed25519", pair.public) == import_public(public)
    assert (export_private(pair, Form.PEM), export_public("Ed25519", pair.public, Form.PEM)) == (plain, public)


def test_the_example_of_rfc_8037() -> None:
    """RFC 8037 appendix A.1."""
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }
    pair = import_private(json.dumps({**jwk, "kid": "ignored", "use": "sig"}).encode())
    assert json.loads(export_private(pair, Form.JWK)) == jwk
    assert pair.public.hex().startswith("d75a980182b10ab7")


@pytest.mark.parametrize("algorithm", ["ML-DSA-65", "ML-DSA-65-Ed25519", "SLH-DSA-SHA2-128f"])
def test_akp_keys_name_their_algorithm(algorithm: str) -> None:
    """RFC 9964 section 3: kty AKP, with alg, pub and priv."""
    pair = key(algorithm)
    assert set(json.loads(export_private(pair, Form.JWK))) == {"kty", "alg", "pub", "priv"}
    public = json.loads(export_public(algorithm, pair.public, Form.JWK))
    assert set(public) == {"kty", "alg", "pub"}
    assert (public["kty"], public["alg"]) == ("AKP", algorithm)


def test_the_composite_has_the_identifier_of_the_draft() -> None:
    """id-MLDSA65-Ed25519-SHA512, 1.3.6.1.5.5.7.6.48, written by hand."""
    pair = key("ML-DSA-65-Ed25519")
    der = export_public("ML-DSA-65-Ed25519", pair.public, Form.DER)
    assert der[4:16].hex() == "300a06082b06010505070630"
    assert der.endswith(pair.public)


def test_the_librarys_vectors_are_read_and_an_expanded_key_without_its_seed_is_refused() -> None:
    for name in ("mlkem768.der", "mlkem768.pem"):
        with open_vector_file(f"asymmetric/MLKEM/{name}", "rb") as file:
            pair = import_private(file.read())
        assert pair.private.hex().startswith("6dbbc4375136df3b07f7c70e639e223e")
    with open_vector_file("asymmetric/MLDSA/mldsa65_noseed_priv.der", "rb") as file:
        refused(file.read(), private=True)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_halves_that_do_not_belong_together_are_refused(algorithm: str) -> None:
    pair = key(algorithm)
    with pytest.raises(CryptoError, match="do not belong together"):
        KeyMaterial(algorithm, bytes(len(pair.public)), pair.private)
    assert repr(pair.private) not in repr(pair)


def test_a_jwk_whose_halves_differ_is_refused() -> None:
    one, two = (json.loads(export_private(key("Ed25519", fill), Form.JWK)) for fill in (1, 2))
    refused(json.dumps({**one, "x": two["x"]}).encode(), private=True)


GOOD = json.loads(export_private(key("Ed25519"), Form.JWK))


@pytest.mark.parametrize(
    "changed",
    [
        {"kty": "AKP"},
        {"kty": "EC"},
        {"kty": None},
        {"crv": "Ed448"},
        {"crv": "X448"},
        {"crv": "ML-DSA-65"},
        {"x": ""},
        {"x": GOOD["x"] + "="},
        {"x": GOOD["x"] + "A"},
        {"x": GOOD["x"][:-1] + "\u00e4"},
        {"x": "+" + GOOD["x"][1:]},
        {"d": 1},
        {"d": "AA"},
    ],
)
def test_a_jwk_that_cannot_be_meant_is_refused(changed: dict[str, object]) -> None:
    refused(json.dumps({**GOOD, **changed}).encode(), private=True)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_der_of_another_length_or_with_a_tail_is_refused(algorithm: str) -> None:
    pair = key(algorithm)
    public, private = export_public(algorithm, pair.public, Form.DER), export_private(pair, Form.DER)
    for data, secret in ((public, False), (private, True)):
        for altered in (data[:-1], data + b"\x00", data[1:], b"", b"\x30\x00" + data):
            refused(altered, private=secret)


@pytest.mark.parametrize(
    "pem",
    [
        lambda text: text.replace(b"PRIVATE", b"PUBLIC"),
        lambda text: text.replace(b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY"),
        lambda text: text + text,
        lambda text: b"a comment\n" + text,
        lambda text: text.replace(b"-----END", b"----END"),
        lambda text: text.replace(b"\nM", b"\n!", 1),
        lambda text: text[:60] + b"=" + text[60:],
    ],
)
def test_pem_that_is_not_one_block_is_refused(pem: object) -> None:
    assert callable(pem)
    refused(pem(export_private(key("Ed25519"), Form.PEM)), private=True)


def test_encrypted_keys_and_keys_of_other_algorithms_are_refused() -> None:
    pair = key("Ed25519")
    refused(
        loaded(pair).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")),
        private=True,
    )
    rsa = generate_private_key(65537, 2048)
    refused(rsa.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), private=True)
    with pytest.raises(CryptoError) as caught:
        export_public("RSA", b"", Form.PEM)
    assert caught.value.code is ALGORITHM_UNKNOWN


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"{" + tail))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_a_crypto_error(data: bytes) -> None:
    refused(data, private=False)
    refused(data, private=True)


@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), algorithm=st.sampled_from(ALGORITHMS))
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_refused_or_is_another_key_of_the_same_algorithm(
    at: float, flip: int, algorithm: str
) -> None:
    pair = key(algorithm)
    data = bytearray(export_private(pair, Form.DER))
    data[int(at * len(data))] ^= flip
    with contextlib.suppress(CryptoError):
        changed = import_private(bytes(data))
        assert len(changed.private) == len(pair.private)
        assert changed != pair
