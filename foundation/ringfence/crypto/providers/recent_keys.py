"""The keys that were last used over plain bytes, kept expanded, so that using one again costs no expansion.

For signing keys alone, which live long. A KEM's private key is often made for one handshake and dropped after it, and
keeping it would undo the forward secrecy that this is for.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s
from threading import Lock
from typing import Final, Generic, TypeVar

PLACES: Final = 8

Key = TypeVar("Key")


class RecentKeys(Generic[Key]):
    """The last `PLACES` keys that were expanded; the oldest makes room. Safe between threads."""

    __slots__ = ("_keys", "_lock")

    def __init__(self) -> None:
        # By digest, so that no secret is compared. The caches are full of the last signature when a key is looked up,
        # so what counts is how little memory that touches: BLAKE2s and one dict, and no order that each use changes.
        self._keys: dict[bytes, Key] = {}
        self._lock = Lock()

    def get(self, private: bytes, expand: Callable[[bytes], Key]) -> Key:
        """The key of `private` as it was expanded before, or by `expand` now; raises what that raises."""
        name = blake2s(private).digest()
        known = self._keys.get(name)
        if known is not None:
            return known
        # Two threads may expand one key at once, and either's is as good.
        key = expand(private)
        with self._lock:
            self._keys[name] = key
            if len(self._keys) > PLACES:
                del self._keys[next(iter(self._keys))]
        return key
