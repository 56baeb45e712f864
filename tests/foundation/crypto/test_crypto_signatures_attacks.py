"""Signatures: what was signed verifies, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.crypto import COMPOSITE, CryptoError, key_id, signature
from ringfence.crypto.errors import ALGORITHM_UNKNOWN, CONTEXT_TOO_LONG, KEY_INVALID, SIGNATURE_INVALID

NAMES = ("Ed25519", "ML-DSA-65", "ML-DSA-65-Ed25519")
WITH_CONTEXT = NAMES[1:]
MLDSA_PUBLIC, MLDSA_SIGNATURE = 1952, 3309
SIZES = {"Ed25519": (32, 32, 64), "ML-DSA-65": (1952, 32, 3309), "ML-DSA-65-Ed25519": (1984, 64, 3373)}

PUBLIC, PRIVATE = COMPOSITE.generate()
SIGNED = COMPOSITE.sign(PRIVATE, b"message", b"context")


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_verifies_and_has_the_standard_sizes(name: str) -> None:
    algorithm = signature(name)
    public, private = algorithm.generate()
    signed = algorithm.sign(private, b"message")
    algorithm.verify(public, b"message", signed)
    assert (len(public), len(private), len(signed)) == SIZES[name]
    assert algorithm.public(private) == public


@pytest.mark.parametrize("name", NAMES)
def test_another_message_key_or_signature_is_refused(name: str) -> None:
    algorithm = signature(name)
    public, private = algorithm.generate()
    other = algorithm.generate()[0]
    signed = algorithm.sign(private, b"message")
    attempts = [
        (public, b"messagf", signed),
        (public, b"", signed),
        (other, b"message", signed),
        *[
            (public, b"message", bad)
            for bad in (b"", signed[:-1], signed + b"\0", bytes(len(signed)), b"\xff" * len(signed))
        ],
    ]
    for attempt in attempts:
        with pytest.raises(CryptoError) as caught:
            algorithm.verify(*attempt)
        assert caught.value.code is SIGNATURE_INVALID


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_key_of_another_length_is_refused(name: str, change: int) -> None:
    algorithm = signature(name)
    public, private = algorithm.generate()
    signed = algorithm.sign(private, b"")
    wrong_public = public[:-1] if change < 0 else public + b"\0"
    wrong_private = private[:-1] if change < 0 else private + b"\0"
    for attempt in (
        lambda: algorithm.verify(wrong_public, b"", signed),
        lambda: algorithm.sign(wrong_private, b""),
        lambda: algorithm.public(wrong_private),
    ):
        with pytest.raises(CryptoError) as caught:
            attempt()
        assert caught.value.code is KEY_INVALID
        assert private.hex() not in str(caught.value)


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_contexts_separate(name: str) -> None:
    algorithm = signature(name)
    public, private = algorithm.generate()
    signed = algorithm.sign(private, b"message", b"one")
    algorithm.verify(public, b"message", signed, b"one")
    for context in (b"", b"two", b"on", b"onee"):
        with pytest.raises(CryptoError) as caught:
            algorithm.verify(public, b"message", signed, context)
        assert caught.value.code is SIGNATURE_INVALID


def test_context_and_message_cannot_trade_bytes() -> None:
    signed = COMPOSITE.sign(PRIVATE, b"bc", b"a")
    with pytest.raises(CryptoError):
        COMPOSITE.verify(PUBLIC, b"c", signed, b"ab")


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_a_context_has_at_most_255_bytes(name: str) -> None:
    algorithm = signature(name)
    public, private = algorithm.generate()
    algorithm.verify(public, b"", algorithm.sign(private, b"", bytes(255)), bytes(255))
    with pytest.raises(CryptoError) as caught:
        algorithm.sign(private, b"", bytes(256))
    assert caught.value.code is CONTEXT_TOO_LONG
    with pytest.raises(CryptoError):
        algorithm.verify(public, b"", algorithm.sign(private, b""), bytes(256))


def test_ed25519_refuses_a_context_instead_of_ignoring_it() -> None:
    algorithm = signature("Ed25519")
    public, private = algorithm.generate()
    with pytest.raises(CryptoError):
        algorithm.sign(private, b"", b"context")
    with pytest.raises(CryptoError):
        algorithm.verify(public, b"", algorithm.sign(private, b""), b"context")


@given(at=st.integers(0, len(SIGNED) - 1), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_no_byte_of_a_composite_signature_can_change(at: int, flip: int) -> None:
    altered = bytearray(SIGNED)
    altered[at] ^= flip
    with pytest.raises(CryptoError):
        COMPOSITE.verify(PUBLIC, b"message", bytes(altered), b"context")


def test_breaking_one_half_of_the_composite_is_not_enough() -> None:
    """Whoever holds one of the two private keys still forges nothing."""
    forger_public, forger_private = COMPOSITE.generate()
    forged = COMPOSITE.sign(forger_private, b"message", b"context")
    COMPOSITE.verify(forger_public, b"message", forged, b"context")
    with_mldsa = forged[:MLDSA_SIGNATURE] + SIGNED[MLDSA_SIGNATURE:]
    with_ed25519 = SIGNED[:MLDSA_SIGNATURE] + forged[MLDSA_SIGNATURE:]
    for attempt in (forged, with_mldsa, with_ed25519):
        with pytest.raises(CryptoError):
            COMPOSITE.verify(PUBLIC, b"message", attempt, b"context")
    # Each half does hold on its own: a verifier that asked for either would have accepted.
    mixed = forger_public[:MLDSA_PUBLIC] + PUBLIC[MLDSA_PUBLIC:]
    COMPOSITE.verify(mixed, b"message", with_mldsa, b"context")


def test_a_component_signature_is_no_signature_of_its_own() -> None:
    """What the composite signs cannot be passed off as a signature by one of its keys, nor the reverse."""
    with pytest.raises(CryptoError):
        signature("ML-DSA-65").verify(PUBLIC[:MLDSA_PUBLIC], b"message", SIGNED[:MLDSA_SIGNATURE], b"context")
    with pytest.raises(CryptoError):
        signature("Ed25519").verify(PUBLIC[MLDSA_PUBLIC:], b"message", SIGNED[MLDSA_SIGNATURE:])
    alone = signature("ML-DSA-65").sign(PRIVATE[:32], b"message") + signature("Ed25519").sign(PRIVATE[32:], b"message")
    with pytest.raises(CryptoError):
        COMPOSITE.verify(PUBLIC, b"message", alone)


def test_ed25519_agrees_with_rfc_8032() -> None:
    """RFC 8032 section 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    expected = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b"
    )
    algorithm = signature("Ed25519")
    assert algorithm.public(seed) == public
    assert algorithm.sign(seed, b"").hex() == expected


def test_an_unknown_algorithm_is_named_with_the_known_ones() -> None:
    with pytest.raises(CryptoError) as caught:
        signature("RSA")
    assert caught.value.code is ALGORITHM_UNKNOWN
    assert all(name in caught.value.hint for name in NAMES)


def test_a_key_id_is_46_characters_and_differs_per_key() -> None:
    other = COMPOSITE.generate()[0]
    assert key_id(PUBLIC) == key_id(bytes(PUBLIC)) != key_id(other)
    assert len(key_id(other)) == 46
    assert key_id(other).startswith("rf1")
