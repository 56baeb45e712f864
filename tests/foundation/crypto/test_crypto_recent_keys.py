"""Keys that are kept expanded: the right one comes back, the oldest goes, and only plain bytes leave any behind."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from ringfence.crypto import CryptoError
from ringfence.crypto.errors import KEY_INVALID
from ringfence.crypto.providers.pyca import Pyca
from ringfence.crypto.providers.pyca_signatures import CompositeMlDsa65Ed25519, Ed25519, MlDsa65, MlDsaSigningKey
from ringfence.crypto.providers.recent_keys import PLACES, RecentKeys

Sign = Callable[[CompositeMlDsa65Ed25519, bytes], object]
SIGNED: list[Sign] = [
    lambda algorithm, private: algorithm.sign(private, b"message", b"context"),
    lambda algorithm, private: algorithm.mldsa.sign(private[:32], b"message", b"context"),
]


@dataclass(slots=True)
class Expander:
    """Expands a key to its own bytes, and notes which."""

    asked: list[bytes] = field(default_factory=list)

    def __call__(self, private: bytes) -> bytes:
        self.asked.append(private)
        return private + b", expanded"


class CountedKeys(RecentKeys[MlDsaSigningKey]):
    """Notes what is expanded for it."""

    def __init__(self) -> None:
        super().__init__()
        self.expanded: list[bytes] = []

    def get(self, private: bytes, expand: Callable[[bytes], MlDsaSigningKey]) -> MlDsaSigningKey:
        def noted(private: bytes) -> MlDsaSigningKey:
            self.expanded.append(private)
            return expand(private)

        return super().get(private, noted)


def composite() -> tuple[CompositeMlDsa65Ed25519, CountedKeys]:
    recent = CountedKeys()
    return CompositeMlDsa65Ed25519(MlDsa65(recent), Ed25519()), recent


def test_a_key_is_expanded_once_and_each_is_its_own() -> None:
    recent, expand = RecentKeys[bytes](), Expander()
    names = [bytes([number]) * 32 for number in range(PLACES)]
    for _ in range(3):
        assert [recent.get(name, expand) for name in names] == [name + b", expanded" for name in names]
    assert expand.asked == names


def test_no_more_than_its_places_are_kept_and_the_oldest_goes_first() -> None:
    recent, expand = RecentKeys[bytes](), Expander()
    names = [bytes([number]) * 32 for number in range(PLACES + 1)]
    for name in names:
        recent.get(name, expand)
    del expand.asked[:]
    for name in names[1:]:
        recent.get(name, expand)
    assert expand.asked == []
    recent.get(names[0], expand)
    recent.get(names[1], expand)
    assert expand.asked == names[:2]


def test_what_cannot_be_expanded_is_not_kept() -> None:
    recent, expand = RecentKeys[bytes](), Expander()

    def refuse(private: bytes) -> bytes:
        raise CryptoError(KEY_INVALID, f"A key of {len(private)} bytes is refused.")

    for _ in range(2):
        with pytest.raises(CryptoError):
            recent.get(b"key", refuse)
    assert recent.get(b"key", expand) == b"key, expanded"


def test_threads_get_the_keys_that_they_asked_for() -> None:
    recent = RecentKeys[str]()
    names = [bytes([number]) * 32 for number in range(2 * PLACES)]
    gate = threading.Barrier(4)

    def ask(start: int) -> bool:
        gate.wait()
        turns = (names[start:] + names[:start]) * 200
        return all(recent.get(name, bytes.hex) == name.hex() for name in turns)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))


@pytest.mark.parametrize("sign", SIGNED)
def test_signing_again_over_plain_bytes_expands_nothing(sign: Sign) -> None:
    algorithm, recent = composite()
    public, private = algorithm.generate()
    for _ in range(3):
        sign(algorithm, private)
    assert recent.expanded == [private[:32]]
    algorithm.verify(public, b"message", algorithm.sign(private, b"message"))
    assert recent.expanded == [private[:32]]


def test_another_key_signs_with_itself() -> None:
    algorithm, _ = composite()
    pairs = [algorithm.generate() for _ in range(PLACES + 2)]
    for public, private in pairs + pairs:
        algorithm.verify(public, b"message", algorithm.sign(private, b"message"))
    with pytest.raises(CryptoError, match=r"crypto\.signature_invalid"):
        algorithm.verify(pairs[0][0], b"message", algorithm.sign(pairs[1][1], b"message"))


def test_a_prepared_key_and_a_public_one_leave_nothing_behind() -> None:
    algorithm, recent = composite()
    public, private = algorithm.generate()
    algorithm.signing_key(private).sign(b"message")
    algorithm.mldsa.signing_key(private[:32]).sign(b"message")
    assert algorithm.public(private) == public
    assert recent.expanded == []


def test_what_is_kept_shows_nowhere_and_is_the_provider_s_own() -> None:
    provider = Pyca()
    algorithm = provider.signature("ML-DSA-65")
    private = secrets.token_bytes(32)
    algorithm.sign(private, b"message")
    for shown in (repr(provider), repr(algorithm), repr(provider.signature("ML-DSA-65-Ed25519"))):
        assert private.hex() not in shown
        assert repr(private)[2:-1] not in shown
        assert "RecentKeys" not in shown
    assert provider == Pyca()
    assert provider.signature("ML-DSA-65") is algorithm is not Pyca().signature("ML-DSA-65")
