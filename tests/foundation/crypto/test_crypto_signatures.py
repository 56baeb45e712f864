"""Signatures at their edges: wrong lengths, flipped bits, contexts, stripped components, prepared keys."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.crypto import COMPOSITE, CryptoError, Signature, signature

NAMES = ["Ed25519", "ML-DSA-65", "ML-DSA-65-Ed25519", "SLH-DSA-SHA2-128f", "SLH-DSA-SHA2-128s"]
MESSAGE = b"what is signed"
CONTEXT = b"what for"


@pytest.fixture(params=NAMES, scope="module")
def algorithm(request: pytest.FixtureRequest) -> Signature:
    return signature(request.param)


def context_of(algorithm: Signature) -> bytes:
    return b"" if algorithm.name == "Ed25519" else CONTEXT


def test_what_was_signed_holds_and_nothing_else(algorithm: Signature) -> None:
    context = context_of(algorithm)
    public, private = algorithm.generate()
    assert algorithm.public(private) == public
    signed = algorithm.sign(private, MESSAGE, context)
    algorithm.verify(public, MESSAGE, signed, context)
    refused = [
        (public, MESSAGE + b"\0", signed, context),
        (public, b"", signed, context),
        (public, MESSAGE, signed[:-1], context),
        (public, MESSAGE, signed + b"\0", context),
        (public, MESSAGE, b"", context),
        (public, MESSAGE, signed[:-1] + bytes([signed[-1] ^ 1]), context),
        (public, MESSAGE, bytes([signed[0] ^ 0x80]) + signed[1:], context),
        (algorithm.generate()[0], MESSAGE, signed, context),
    ]
    if context:
        refused += [(public, MESSAGE, signed, b""), (public, MESSAGE, signed, context + b"\0")]
        refused += [(public, context + MESSAGE, signed, b"")]
    messages = set()
    for arguments in refused:
        with pytest.raises(CryptoError) as caught:
            algorithm.verify(*arguments)
        messages.add(str(caught.value))
    assert messages == {"crypto.signature_invalid: The signature does not hold for this message and key."}


def test_prepared_keys_do_the_same_and_do_not_show_themselves(algorithm: Signature) -> None:
    public, private = algorithm.generate()
    key = algorithm.signing_key(private)
    signed = key.sign(MESSAGE, context_of(algorithm))
    algorithm.verifying_key(public).verify(MESSAGE, signed, context_of(algorithm))
    algorithm.verify(public, MESSAGE, signed, context_of(algorithm))
    assert private.hex() not in repr(key)
    assert repr(private)[2:12] not in repr(key)
    assert "PrivateKey" not in repr(key)


def test_every_wrong_length_is_refused(algorithm: Signature) -> None:
    public, private = algorithm.generate()
    for wrong in (b"", private[:-1], private + b"\0"):
        for attempt in (algorithm.public, algorithm.signing_key):
            with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
                attempt(wrong)
    for wrong in (b"", public[:-1], public + b"\0"):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            algorithm.verify(wrong, MESSAGE, b"")


def test_a_context_of_256_bytes_is_refused_and_one_of_255_is_not(algorithm: Signature) -> None:
    public, private = algorithm.generate()
    for context in (bytes(256), b"any" if algorithm.name == "Ed25519" else bytes(1000)):
        with pytest.raises(CryptoError, match=r"crypto\.context_too_long"):
            algorithm.sign(private, MESSAGE, context)
    if algorithm.name != "Ed25519":
        algorithm.verify(public, MESSAGE, algorithm.sign(private, MESSAGE, bytes(255)), bytes(255))
        with pytest.raises(CryptoError, match=r"crypto\.context_too_long"):
            algorithm.verify(public, MESSAGE, algorithm.sign(private, MESSAGE, b""), bytes(256))


@pytest.mark.parametrize("name", ["ML-DSA-65", "ML-DSA-65-Ed25519", "SLH-DSA-SHA2-128f"])
def test_signing_is_hedged(name: str) -> None:
    algorithm = signature(name)
    _, private = algorithm.generate()
    assert algorithm.sign(private, MESSAGE) != algorithm.sign(private, MESSAGE)


def test_the_composite_needs_both_components() -> None:
    public, private = COMPOSITE.generate()
    _, other = COMPOSITE.generate()
    signed, forged = COMPOSITE.sign(private, MESSAGE), COMPOSITE.sign(other, MESSAGE)
    for mixed in (signed[:3309] + forged[3309:], forged[:3309] + signed[3309:]):
        with pytest.raises(CryptoError, match=r"crypto\.signature_invalid"):
            COMPOSITE.verify(public, MESSAGE, mixed)


def test_a_component_of_the_composite_is_no_signature_by_itself() -> None:
    public, private = COMPOSITE.generate()
    signed = COMPOSITE.sign(private, MESSAGE)
    with pytest.raises(CryptoError):
        signature("ML-DSA-65").verify(public[:1952], MESSAGE, signed[:3309])
    with pytest.raises(CryptoError):
        signature("Ed25519").verify(public[1952:], MESSAGE, signed[3309:])


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_any_32_bytes_are_a_key_that_verifies_nothing(public: bytes, signed: bytes) -> None:
    for name in ("Ed25519", "SLH-DSA-SHA2-128f"):
        with pytest.raises(CryptoError, match=r"crypto\.signature_invalid"):
            signature(name).verify(public, MESSAGE, signed)


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(CryptoError, match=r"crypto\.algorithm_unknown.*Ed25519.*SLH-DSA-SHA2-128s"):
        signature("SPHINCS+")
    with pytest.raises(CryptoError, match=r"crypto\.algorithm_unknown"):
        signature("X-Wing")
