"""The key store on disk: a folder with an index and one private key file (mode 0600) for every version of a key.

A private key file of the composite algorithm is the key file that the daemons read; other algorithms are PKCS#8 in
PEM; a sealed key is an armoured block of what its sealer made. Each change replaces the index whole, after the files
that it names and before those that it no longer names: after a crash the store is the old one or the new one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ringfence.crypto import COMPOSITE, CryptoError, kem, signature
from ringfence.crypto.forms import Form, KeyMaterial, export_private, import_private, public_of
from ringfence.keystore.errors import MALFORMED, RETIRED, SEALED, KeyStoreError
from ringfence.keystore.index import FILE_NAME, Index, StoredKey, emit, parse
from ringfence.keystore.sealing import Sealer
from ringfence.trust.errors import MISSING_FILE, TrustError
from ringfence.trust.files import erase, locked, read, write_new
from ringfence.trust.files import replace as replace_file
from ringfence.trust.keys import PRIVATE, armour, only_the_owner, unarmour

SEALED_LABEL: Final = "RINGFENCE SEALED PRIVATE KEY"
_KEMS: Final = frozenset({"X25519", "ML-KEM-768", "X-Wing"})


class KeyStore:
    """The keys in `folder`, which belongs to the store alone. With a `sealer`, new private keys are sealed by it.

    Raises `KeyStoreError`, and `TrustError` (trust.missing_file, trust.unsafe_file) for files that cannot be used.
    """

    def __init__(self, folder: Path, sealer: Sealer | None = None) -> None:
        self._folder = folder
        self._sealer = sealer

    def index(self) -> Index:
        """The keys as the index has them now; a folder without an index holds none."""
        path = self._folder / FILE_NAME
        try:
            return parse(read(path, only_the_owner), str(path))
        except TrustError as error:
            if error.code is not MISSING_FILE:
                raise
            return Index()

    def generate(self, name: str, algorithm: str, *, now: int) -> StoredKey:
        """A fresh key of `algorithm` under a new name."""
        return self.add(name, _generate(algorithm), now=now)

    def add(self, name: str, material: KeyMaterial, *, now: int) -> StoredKey:
        """A key that was made elsewhere, under a new name."""

        def added(index: Index) -> tuple[Index, StoredKey]:
            key = self._described(name, 0, material, now)
            return index.add(key), key

        return self._change(added, material)

    def rotate(self, name: str, *, now: int, overlap_s: int, material: KeyMaterial | None = None) -> StoredKey:
        """A new version of `name`, a fresh key unless `material` is given.

        The version before it counts for `overlap_s` more seconds; what has retired by `now` is erased.
        """
        current = self.index().versions(name)[0]
        fresh = _generate(current.algorithm) if material is None else material

        def changed(index: Index) -> tuple[Index, StoredKey]:
            key = self._described(name, index.versions(name)[0].version, fresh, now)
            return index.rotate(key, retires_at=now + overlap_s), key

        rotated = self._change(changed, fresh)
        self.prune(now=now)
        return rotated

    def usable(self, name: str, *, now: int) -> tuple[StoredKey, ...]:
        """The versions of `name` that count at `now`, the newest first: sign with the first, decrypt with any."""
        return tuple(key for key in self.index().versions(name) if not key.retired(now))

    def open(self, key: StoredKey, *, now: int) -> KeyMaterial:
        """The key with its private half, which is held in ordinary memory from here on.

        Raises keystore.retired, keystore.sealed where another sealer is needed, keystore.unsealable, and
        keystore.malformed where the file holds another key than the index says.
        """
        if key.retired(now):
            raise KeyStoreError(
                RETIRED, f"version {key.version} of {key.name!r} has retired.", field="name", hint="Use a newer one."
            )
        path = self._folder / key.file_name
        data = read(path, only_the_owner)
        try:
            material = self._material(key, data)
        except (CryptoError, TrustError) as error:
            raise KeyStoreError(MALFORMED, f"{path} holds no {key.algorithm} key.", field=str(path)) from error
        if (material.algorithm, material.public) != (key.algorithm, key.public):
            raise KeyStoreError(
                MALFORMED, f"{path} holds another key than {key.key_id}.", field=str(path), hint="Restore the file."
            )
        return material

    def prune(self, *, now: int) -> tuple[StoredKey, ...]:
        """Erases the private halves that have retired by `now` and takes them off the index; gives them back."""
        with locked(self._folder):
            index = self.index()
            retired = tuple(key for key in index.keys if key.retired(now))
            for key in retired:
                erase(self._folder / key.file_name)
            if retired:
                self._save(index.without(retired))
            return retired

    def _change(self, edit: Callable[[Index], tuple[Index, StoredKey]], material: KeyMaterial) -> StoredKey:
        with locked(self._folder):
            index, key = edit(self.index())
            write_new(self._folder / key.file_name, self._written(key, material), 0o600)
            self._save(index)
            return key

    def _save(self, index: Index) -> None:
        replace_file(self._folder / FILE_NAME, emit(index))

    def _described(self, name: str, before: int, material: KeyMaterial, now: int) -> StoredKey:
        """The version after `before`, or after what an interrupted change left: no file is ever written over."""
        sealed_by = "" if self._sealer is None else self._sealer.name
        for version in itertools.count(before + 1):
            key = StoredKey(name, version, material.algorithm, material.public, now, sealed_by=sealed_by)
            if not os.path.lexists(self._folder / key.file_name):
                break
        return key

    def _written(self, key: StoredKey, material: KeyMaterial) -> bytes:
        if self._sealer is not None:
            return armour(SEALED_LABEL, self._sealer.seal(material.private, _associated(key)))
        if material.algorithm == COMPOSITE.name:
            return armour(PRIVATE, material.private)
        return export_private(material, Form.PEM)

    def _material(self, key: StoredKey, data: bytes) -> KeyMaterial:
        if key.sealed_by:
            if self._sealer is None or self._sealer.name != key.sealed_by:
                raise KeyStoreError(
                    SEALED,
                    f"{key.name!r} is sealed by {key.sealed_by!r}.",
                    field="name",
                    hint="Open the store on the host, and with the sealer, that sealed it.",
                )
            private = self._sealer.unseal(unarmour(SEALED_LABEL, data), _associated(key))
        elif key.algorithm == COMPOSITE.name:
            private = unarmour(PRIVATE, data)
        else:
            return import_private(data)
        return KeyMaterial(key.algorithm, public_of(key.algorithm, private), private)


def _generate(algorithm: str) -> KeyMaterial:
    if algorithm in _KEMS:
        public, private = kem(algorithm).generate()
    else:
        public, private = signature(algorithm).generate()
    return KeyMaterial(algorithm, public, private)


def _associated(key: StoredKey) -> bytes:
    """What a sealed key is bound to: a blob moved under another name, version or algorithm does not open."""
    return "\n".join(["ringfence key", key.name, str(key.version), key.algorithm, key.key_id]).encode()
