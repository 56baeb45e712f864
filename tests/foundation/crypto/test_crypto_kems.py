"""KEMs and HPKE at their edges: wrong lengths, non-canonical keys, small orders, flipped bits, prepared keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.crypto import AdditionalShare, CryptoError, Kem, bike, hpke, kem
from ringfence.crypto.bike.decoder import decode
from ringfence.crypto.bike.ring import invert, multiply, polynomial, support
from ringfence.crypto.combiner import combine
from ringfence.crypto.kems import AdditionalShareKemName, KemName
from ringfence.crypto.providers.own import OwnBike

KEMS: tuple[KemName, ...] = get_args(KemName)
BIKES: tuple[AdditionalShareKemName, ...] = get_args(AdditionalShareKemName)
# Points of order 1, 2, 4 and 8, and their forms past the prime (RFC 7748, Wycheproof).
SMALL_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.fixture(params=KEMS)
def algorithm(request: pytest.FixtureRequest) -> Kem:
    name: KemName = request.param
    return kem(name)


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")


def test_both_sides_get_one_secret(algorithm: Kem) -> None:
    public, private = algorithm.generate()
    ciphertext, secret = algorithm.encapsulate(public)
    assert algorithm.decapsulate(private, ciphertext) == secret
    assert len(secret) == 32
    assert algorithm.encapsulate(public) != (ciphertext, secret)


def test_prepared_keys_do_the_same_and_do_not_show_themselves(algorithm: Kem) -> None:
    public, private = algorithm.generate()
    ciphertext, secret = algorithm.encapsulation_key(public).encapsulate()
    key = algorithm.decapsulation_key(private)
    assert key.decapsulate(ciphertext) == algorithm.decapsulate(private, ciphertext) == secret
    assert private.hex() not in repr(key)
    assert "PrivateKey" not in repr(key)


def test_every_wrong_length_is_refused(algorithm: Kem) -> None:
    public, private = algorithm.generate()
    ciphertext, _ = algorithm.encapsulate(public)
    for wrong in (b"", public[:-1], public + b"\0", private[:5]):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            algorithm.encapsulate(wrong)
    for wrong in (b"", private[:-1], private + b"\0"):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            algorithm.decapsulate(wrong, ciphertext)
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\0"):
        with pytest.raises(CryptoError, match=r"crypto\.ciphertext_invalid"):
            algorithm.decapsulate(private, wrong)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_gives_another_secret(data: st.DataObject) -> None:
    for name in KEMS:
        algorithm = kem(name)
        public, private = algorithm.generate()
        ciphertext, secret = algorithm.encapsulate(public)
        bit = data.draw(st.integers(0, 8 * len(ciphertext) - 1), label=name)
        altered = flipped(ciphertext, bit)
        assert algorithm.decapsulate(private, altered) != secret


def test_an_ml_kem_key_with_a_coefficient_out_of_range_is_refused() -> None:
    public, _ = kem("ML-KEM-768").generate()
    for name in ("ML-KEM-768", "X-Wing"):
        beyond = b"\xff\xff\xff" + public[3:] + (bytes(32) if name == "X-Wing" else b"")
        with pytest.raises(CryptoError, match="not canonical"):
            kem(name).encapsulate(beyond)


@pytest.mark.parametrize("point", SMALL_ORDER, ids=lambda point: point.hex()[:8])
def test_points_of_small_order_are_refused_by_both_sides(point: bytes) -> None:
    for algorithm, pad in ((kem("X25519"), 0), (kem("X-Wing"), 1184)):
        public, private = algorithm.generate()
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid.*small order"):
            algorithm.encapsulate(public[:pad] + point)
        ciphertext, _ = algorithm.encapsulate(public)
        with pytest.raises(CryptoError, match=r"crypto\.ciphertext_invalid.*small order"):
            algorithm.decapsulate(private, ciphertext[: len(ciphertext) - 32] + point)
    public, _ = kem("X-Wing").generate()
    with pytest.raises(CryptoError, match=r"crypto\.key_invalid.*small order"):
        hpke().seal(public[:1184] + point, b"message")


@pytest.mark.parametrize("name", BIKES)
def test_bike_gives_shares_that_only_the_combiner_reads(name: AdditionalShareKemName) -> None:
    algorithm = kem(name)
    public, private = algorithm.generate()
    ciphertext, share = algorithm.encapsulate(public)
    again = algorithm.decapsulate(private, ciphertext)
    assert isinstance(share, AdditionalShare)
    assert share.algorithm == name
    salt, secret = b"transcript", bytes(32)
    assert combine(salt, secret, [share]) == combine(salt, secret, [again]) != combine(salt, secret)
    with pytest.raises(TypeError):
        bytes(share)  # type: ignore[call-overload]
    assert "secret" not in repr(share).replace("AdditionalShare", "")
    for bit in (0, 7, 8 * len(ciphertext) - 1):
        rejected = algorithm.decapsulate(private, flipped(ciphertext, bit))
        assert combine(salt, secret, [rejected]) != combine(salt, secret, [share])


@pytest.mark.parametrize("level", bike.LEVELS, ids=lambda level: level.name)
def test_bike_refuses_what_is_not_in_its_encoding(level: bike.Parameters) -> None:
    algorithm = OwnBike(level)
    public, private = algorithm.generate()
    ciphertext, _ = algorithm.encapsulate(public)
    beyond = bytes(level.block - 1) + b"\x80"  # r is no multiple of 8
    for wrong in (b"", public[:-1], public + b"\0", beyond):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            algorithm.encapsulate(wrong)
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\0", beyond + ciphertext[level.block :]):
        with pytest.raises(CryptoError, match=r"crypto\.ciphertext_invalid"):
            algorithm.decapsulate(private, wrong)
    twice = private[:4] * 2 + private[8:]
    outside = level.r.to_bytes(4, "little") + private[4:]
    far_outside = (8 * level.block).to_bytes(4, "little") + private[4:]
    dense_only = flipped(private, 8 * 8 * level.d)
    for wrong in (b"", private[:-1], private + b"\0", twice, outside, far_outside, dense_only):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            algorithm.decapsulate(wrong, ciphertext)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 1541))
def test_bike_never_fails_in_another_way(noise: bytes, at: int) -> None:
    level = bike.BIKE_L1
    key = bike.generate(level, bytes(32), bytes(32))
    ciphertext, _ = bike.encapsulate(level, key.public, bytes(32))
    altered = (ciphertext[:at] + noise + ciphertext[at + len(noise) :])[: len(ciphertext)]
    if int.from_bytes(altered[: level.block], "little") > level.mask:
        with pytest.raises(CryptoError, match=r"crypto\.ciphertext_invalid"):
            bike.decapsulate(key, altered)
    else:
        assert len(bike.decapsulate(key, altered)) == 32


@settings(max_examples=60)
@given(st.sets(st.integers(0, 100), max_size=101), st.sets(st.integers(0, 100), max_size=101))
def test_sparse_products_are_products(first: set[int], second: set[int]) -> None:
    expected = 0
    for one in first:
        for other in second:
            expected ^= 1 << (one + other) % 101
    assert multiply(first, polynomial(second), 101) == expected
    assert support(polynomial(first)) == sorted(first)


@settings(max_examples=60)
@given(st.sets(st.integers(0, 100), min_size=1, max_size=99).filter(lambda ones: len(ones) % 2 == 1))
def test_inverses_are_inverses(ones: set[int]) -> None:
    assert multiply(ones, invert(polynomial(ones), 101), 101) == 1


def test_a_polynomial_of_even_weight_has_no_inverse() -> None:
    for ones in ([0, 1], [], range(100)):
        with pytest.raises(ValueError, match="no inverse"):
            invert(polynomial(ones), 101)


TOY = bike.Parameters("toy", r=523, d=15, t=18, base=600000000, slope=1500000, least=8)


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(10, 40))
def test_the_decoder_does_what_the_specification_says_bit_by_bit(random: Random, weight: int) -> None:
    """Errors from easy to hopeless: the bit slices decide as counting one position after another does."""
    blocks = [sorted(random.sample(range(TOY.r), TOY.d)) for _ in range(2)]
    error = random.sample(range(2 * TOY.r), weight)
    syndrome = 0
    for side, block in enumerate(blocks):
        half = polynomial(position - side * TOY.r for position in error if position // TOY.r == side)
        syndrome ^= multiply(block, half, TOY.r)
    assert decode(TOY, blocks, syndrome) == decode_by_counting(TOY, blocks, syndrome)


def decode_by_counting(level: bike.Parameters, blocks: list[list[int]], syndrome: int) -> tuple[int, int]:
    errors = [[0] * level.r, [0] * level.r]

    def unsatisfied() -> list[list[int]]:
        left = [syndrome >> row & 1 for row in range(level.r)]
        for block, half in zip(blocks, errors, strict=True):
            for column in (column for column, bit in enumerate(half) if bit):
                for one in block:
                    left[(column + one) % level.r] ^= 1
        counts = [
            [sum(left[(column + one) % level.r] for one in block) for column in range(level.r)] for block in blocks
        ]
        return [[sum(left)], *counts]

    for iteration in range(5):
        (weight,), *counts = unsatisfied()
        threshold = level.threshold(weight)
        black = [[count >= threshold for count in side] for side in counts]
        gray = [[threshold > count >= threshold - 3 for count in side] for side in counts]
        for half, flips in zip(errors, black, strict=True):
            half[:] = [bit ^ flip for bit, flip in zip(half, flips, strict=True)]
        for candidates in (black, gray) if iteration == 0 else ():
            _, *counts = unsatisfied()
            for half, side, marked in zip(errors, counts, candidates, strict=True):
                flips = [mark and count >= (level.d + 1) // 2 + 1 for mark, count in zip(marked, side, strict=True)]
                half[:] = [bit ^ flip for bit, flip in zip(half, flips, strict=True)]
    first, second = (polynomial(column for column, bit in enumerate(half) if bit) for half in errors)
    return first, second


@pytest.mark.parametrize("name", ["HPKE-MLKEM768-X25519-AES-256-GCM", "HPKE-MLKEM768-X25519-ChaCha20-Poly1305"])
def test_hpke_opens_what_was_sealed_and_nothing_else(name: str) -> None:
    suite = hpke(name)
    public, private = kem("MLKEM768-X25519").generate()
    sealed = suite.seal(public, b"message", b"info")
    assert suite.open(private, sealed, b"info") == b"message"
    assert suite.opening_key(private).open(suite.sealing_key(public).seal(b"", b""), b"") == b""
    _, stranger = kem("X-Wing").generate()
    refused: list[Callable[[], bytes]] = [
        lambda: suite.open(private, sealed, b"other"),
        lambda: suite.open(stranger, sealed, b"info"),
        lambda: suite.open(private, sealed[:-1], b"info"),
        lambda: suite.open(private, sealed + b"\0", b"info"),
        lambda: suite.open(private, b"", b"info"),
        lambda: suite.open(private, sealed[:1088] + bytes(32) + sealed[1120:], b"info"),
        *(partial(suite.open, private, flipped(sealed, bit), b"info") for bit in (0, 8704, 8960, 8 * len(sealed) - 1)),
    ]
    messages = set()
    for attempt in refused:
        with pytest.raises(CryptoError) as caught:
            attempt()
        messages.add(str(caught.value))
    assert len(messages) == 1  # which part failed is not said
    for wrong in (public[:-1], public + b"\0", b""):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            suite.seal(wrong, b"message")
    for wrong in (private[:-1], private + b"\0", b""):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            suite.open(wrong, sealed)


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(CryptoError, match=r"crypto\.algorithm_unknown.*BIKE-L1.*ML-KEM-768.*X-Wing"):
        kem("Kyber768")
    with pytest.raises(CryptoError, match=r"crypto\.algorithm_unknown.*HPKE-MLKEM768"):
        hpke("HPKE-P256")
