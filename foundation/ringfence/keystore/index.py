"""The key store's index as a value and as `keys.toml`: which keys there are, in which version, until when."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ringfence.config import convert, tables
from ringfence.crypto import key_id
from ringfence.crypto.forms import ALGORITHMS
from ringfence.keystore.errors import EXISTS, MALFORMED, NO_SUCH_KEY, KeyStoreError
from ringfence.trust.store import Time, quoted

FILE_NAME: Final = "keys.toml"
MAX_NAME: Final = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}")

_HEADING = """\
# The keys of this host. Written by `ringfence keys`; the private halves lie beside it, one file a version.
version = 1
"""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One version of a key, without its private half; times are seconds since the epoch.

    `retires_at` is when an older version stops counting; the newest version of a name has none. `sealed_by` names the
    sealer, and is empty where the private half lies in the clear.
    """

    name: str
    version: int
    algorithm: str
    public: bytes
    created_at: int
    retires_at: int | None = None
    sealed_by: str = ""
    key_id: str = field(init=False, compare=False)
    """`rf1` and the unpadded base64url of the public key's SHA-256."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise KeyStoreError(
                MALFORMED,
                f"{self.name!r} cannot name a key.",
                field="name",
                hint=f"Use up to {MAX_NAME} letters, digits, dashes and underscores, a letter or digit first.",
            )
        object.__setattr__(self, "key_id", key_id(self.public))

    @property
    def file_name(self) -> str:
        """The file of the private half, in the store's folder."""
        return f"{self.name}.{self.version}.key"

    def retired(self, now: int) -> bool:
        """Whether this version no longer counts at `now`."""
        return self.retires_at is not None and now >= self.retires_at


@dataclass(frozen=True, slots=True)
class Index:
    """Every key of a store, older versions of a name before newer ones; else `KeyStoreError` keystore.malformed."""

    keys: tuple[StoredKey, ...] = ()

    def __post_init__(self) -> None:
        newest: dict[str, StoredKey] = {}
        for key in self.keys:
            before = newest.get(key.name)
            if before is not None and (before.version >= key.version or before.retires_at is None):
                raise KeyStoreError(
                    MALFORMED,
                    f"version {before.version} of {key.name!r} comes before {key.version} and does not retire.",
                    field="retires_at",
                )
            newest[key.name] = key
        for key in newest.values():
            if key.retires_at is not None:
                raise KeyStoreError(MALFORMED, f"{key.name!r} has no version that stays.", field="retires_at")

    def versions(self, name: str) -> tuple[StoredKey, ...]:
        """Every version of `name`, the newest first; `KeyStoreError` keystore.no_such_key where there is none."""
        found = tuple(key for key in reversed(self.keys) if key.name == name)
        if not found:
            raise KeyStoreError(
                NO_SUCH_KEY, f"there is no key {name!r}.", field="name", hint="`ringfence keys list` shows every key."
            )
        return found

    def add(self, key: StoredKey) -> Index:
        """The index with a first version; `KeyStoreError` keystore.exists where the name is taken."""
        if any(held.name == key.name for held in self.keys):
            raise KeyStoreError(
                EXISTS,
                f"there is a key {key.name!r} already, and keys are never overwritten.",
                field="name",
                hint="Choose another name, or run `ringfence keys rotate`.",
            )
        return Index((*self.keys, key))

    def rotate(self, key: StoredKey, *, retires_at: int) -> Index:
        """The index where `key` is the newest version and the one before it retires."""
        newest = self.versions(key.name)[0]
        return Index((*(replace(k, retires_at=retires_at) if k is newest else k for k in self.keys), key))

    def without(self, gone: tuple[StoredKey, ...]) -> Index:
        """The index without these versions."""
        return Index(tuple(key for key in self.keys if key not in gone))


class _WireKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
    algorithm: str
    key_id: str
    public_key: bytes
    created_at: Time
    retires_at: Time | None = None
    sealed_by: Annotated[str, msgspec.Meta(max_length=128)] = ""


class _WireIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    key: tuple[_WireKey, ...] = ()


def parse(data: bytes, source: str) -> Index:
    """The index in the bytes of `keys.toml`; `source` names it in errors. Reads no file.

    Raises `ConfigError` with the line where the file has another shape, `KeyStoreError` keystore.malformed where its
    keys cannot be meant.
    """
    values, text = tables(data, source)
    wire = convert(values, text, _WireIndex, source=source, folder=Path(), hint="`ringfence keys` writes this file.")
    try:
        return Index(tuple(_key(entry) for entry in wire.key))
    except KeyStoreError as error:
        raise KeyStoreError(error.code, f"{source}: {error.message}", field=error.field) from error


def emit(index: Index) -> bytes:
    """The bytes of `keys.toml` that `parse` reads back as an equal index."""
    return "\n".join([_HEADING, *(_entry(key) for key in index.keys)]).encode()


def _key(entry: _WireKey) -> StoredKey:
    if entry.algorithm not in ALGORITHMS:
        raise KeyStoreError(MALFORMED, f"{entry.name!r} is of an unknown algorithm.", field="algorithm")
    key = StoredKey(
        entry.name,
        entry.version,
        entry.algorithm,
        entry.public_key,
        entry.created_at,
        entry.retires_at,
        entry.sealed_by,
    )
    if key.key_id != entry.key_id:
        raise KeyStoreError(MALFORMED, f"{entry.name!r} is {key.key_id}, not {entry.key_id!r}.", field="key_id")
    return key


def _entry(key: StoredKey) -> str:
    lines = [
        "[[key]]",
        f"name = {quoted(key.name)}",
        f"version = {key.version}",
        f"algorithm = {quoted(key.algorithm)}",
        f"key_id = {quoted(key.key_id)}",
        f"public_key = {quoted(base64.b64encode(key.public).decode('ascii'))}",
        f"created_at = {key.created_at}",
    ]
    if key.retires_at is not None:
        lines.append(f"retires_at = {key.retires_at}")
    if key.sealed_by:
        lines.append(f"sealed_by = {quoted(key.sealed_by)}")
    return "\n".join([*lines, ""])
