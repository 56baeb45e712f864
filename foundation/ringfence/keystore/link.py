"""A key link inside one process, for tests and demonstrations: the shape of a QKD link, and no quantum in it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence

from ringfence.crypto import CryptoError
from ringfence.crypto.errors import KEY_UNAVAILABLE
from ringfence.crypto.pad import SharedKey


class MemoryLink:
    """Both ends of a `KeySource`: what one end gets, the other may ask for, once. `random` makes the keys."""

    def __init__(self, random: Callable[[int], bytes], *, max_key_size: int = 1 << 20) -> None:
        self._random = random
        self._max_key_size = max_key_size
        self._lock = threading.Lock()
        self._waiting: dict[str, bytes] = {}

    @property
    def max_key_size(self) -> int:
        """The longest key that one call gives, in bytes."""
        return self._max_key_size

    def get_key(self, number: int, size: int) -> Sequence[SharedKey]:
        """`number` fresh keys of `size` bytes; `crypto.key_unavailable` beyond the longest key."""
        if not 0 < size <= self._max_key_size:
            raise CryptoError(KEY_UNAVAILABLE, f"The link gives keys of 1 to {self._max_key_size} bytes, not {size}.")
        keys = [SharedKey(str(uuid.UUID(bytes=self._random(16), version=4)), self._random(size)) for _ in range(number)]
        with self._lock:
            self._waiting.update({key.key_id: key.secret for key in keys})
        return keys

    def get_key_with_ids(self, key_ids: Sequence[str]) -> Sequence[SharedKey]:
        """The keys that the other end got, which are forgotten here; `crypto.key_unavailable` where one is not held."""
        with self._lock:
            if len(set(key_ids)) != len(key_ids) or not set(key_ids) <= self._waiting.keys():
                raise CryptoError(KEY_UNAVAILABLE, "The link does not hold a key that is asked for.", field="key_id")
            return [SharedKey(key_id, self._waiting.pop(key_id)) for key_id in key_ids]
