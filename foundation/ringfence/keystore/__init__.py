"""This host's own private keys: named, versioned, rotated with an overlap, and optionally sealed to the host."""

from __future__ import annotations

from ringfence.keystore.errors import KeyStoreError
from ringfence.keystore.index import Index, StoredKey
from ringfence.keystore.sealing import Sealer
from ringfence.keystore.spent import SpentKeys
from ringfence.keystore.store import KeyStore

__all__ = ["Index", "KeyStore", "KeyStoreError", "Sealer", "SpentKeys", "StoredKey"]
