"""The port through which stored keys are bound to this host, so that a copy of the disk opens nothing."""

from __future__ import annotations

from typing import Protocol


class Sealer(Protocol):
    """Seals a private key to something that only this host has, such as its TPM; without one, keys lie in the clear."""

    @property
    def name(self) -> str:
        """What the index names as the key's sealer: printable, at most 128 characters."""
        ...

    def seal(self, secret: bytes, associated: bytes) -> bytes:
        """`secret` in a form that opens on this host alone, together with the same `associated`."""
        ...

    def unseal(self, sealed: bytes, associated: bytes) -> bytes:
        """The secret; `KeyStoreError` keystore.unsealable where host, state, bytes or `associated` differ."""
        ...
