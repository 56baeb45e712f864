"""Enrolled WebAuthn credentials: the port of their store, and the store in a file."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec
from fido2 import cbor
from fido2.cose import CoseKey
from msgspec import Meta

from ringfence.config.files import read_bounded
from ringfence.plugin.identity import ceremony
from ringfence.plugin.identity.errors import (
    CREDENTIAL_EXISTS,
    CREDENTIALS_FULL,
    CREDENTIALS_UNUSABLE,
    IdentityError,
)
from ringfence.plugin.identity.names import checked
from ringfence.trust import files

MAX_FILE: Final = 16 << 20
MAX_CREDENTIALS: Final = 10_000
MAX_OF_ONE: Final = 16


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential of `owner` (a principal). `key` is its public key in COSE; `counter` the last one that it showed.

    `attested` says whether an authority vouched for the authenticator when it was enrolled; `enrolled_at` is in seconds
    since the epoch.
    """

    credential: bytes
    owner: str
    key: bytes = field(repr=False)
    counter: int
    enrolled_at: int
    attested: bool = False


class CredentialStore(Protocol):
    """Enrolled credentials."""

    def find(self, credential: bytes) -> Credential | None:
        """The credential with that id."""
        ...

    def of(self, owner: str) -> tuple[Credential, ...]:
        """A principal's credentials, in the order in which they were enrolled."""
        ...

    async def advance(self, credential: bytes, counter: int) -> bool:
        """Whether `counter` is later than the one that is kept; if so it is kept, durably and at once for everybody.

        Two zeros are in order too: an authenticator without a counter always shows zero (section 6.1.1).
        """
        ...

    async def add(self, credential: Credential) -> None:
        """Enrols one. Raises `identity.credential_exists`, `identity.credentials_full`."""
        ...


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    credential: Annotated[bytes, Meta(min_length=1, max_length=1023)]
    owner: str
    key: Annotated[bytes, Meta(max_length=2048)]
    counter: Annotated[int, Meta(ge=0, lt=1 << 32)]
    enrolled_at: int
    attested: bool = False


class _Entries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    credentials: Annotated[tuple[_Entry, ...], Meta(max_length=MAX_CREDENTIALS)] = ()


def parse(data: bytes, source: str) -> dict[bytes, Credential]:
    """The credentials in the bytes of a file. Raises `identity.credentials_unusable`, `identity.name_unsafe`."""
    try:
        entries = msgspec.json.decode(data, type=_Entries).credentials
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unusable(source, f"it is not the file that enrolment writes ({error})") from None
    found: dict[bytes, Credential] = {}
    for entry in entries:
        if entry.credential in found:
            raise _unusable(source, "a credential is in it twice")
        checked(entry.owner, field="owner")
        read_key(entry.key)
        found[entry.credential] = Credential(
            entry.credential, entry.owner, entry.key, entry.counter, entry.enrolled_at, entry.attested
        )
    return found


def read_key(data: bytes) -> CoseKey:
    """The COSE key in `data`. Raises `identity.evidence_malformed`."""
    try:
        cose = cbor.decode(data)
    except ceremony.FAULTS:
        cose = None
    return ceremony.public_key(cose if isinstance(cose, dict) else {})


class CredentialFile:
    """The store in one file (mode 0600), replaced whole; an absent file has no credentials.

    One process owns it. A write takes as long as the disk does, so it happens in a thread, and one at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = parse(read_bounded(path, MAX_FILE), str(path)) if path.exists() else {}
        self._writing = threading.Lock()

    def find(self, credential: bytes) -> Credential | None:
        return self._held.get(credential)

    def of(self, owner: str) -> tuple[Credential, ...]:
        return tuple(entry for entry in self._held.values() if entry.owner == owner)

    async def advance(self, credential: bytes, counter: int) -> bool:
        held = self._held[credential]
        if counter == held.counter == 0:
            return True
        if counter <= held.counter:
            return False
        # Kept before it is written: of two assertions with one counter, the second is late at once.
        self._held[credential] = replace(held, counter=counter)
        await asyncio.to_thread(self._write)
        return True

    async def add(self, credential: Credential) -> None:
        if credential.credential in self._held:
            raise IdentityError(
                CREDENTIAL_EXISTS, "This credential is enrolled already.", field="credential", hint="Use another key."
            )
        if len(self._held) >= MAX_CREDENTIALS or len(self.of(credential.owner)) >= MAX_OF_ONE:
            raise IdentityError(
                CREDENTIALS_FULL,
                f"There are {MAX_CREDENTIALS} credentials, or {MAX_OF_ONE} of this principal.",
                field="credential",
                hint="Remove one that is not used any more.",
            )
        self._held[credential.credential] = credential
        try:
            await asyncio.to_thread(self._write)
        except IdentityError:
            self._held.pop(credential.credential, None)
            raise

    def _write(self) -> None:
        with self._writing:
            entries = tuple(
                _Entry(one.credential, one.owner, one.key, one.counter, one.enrolled_at, one.attested)
                for one in tuple(self._held.values())
            )
            try:
                files.replace(self._path, msgspec.json.format(msgspec.json.encode(_Entries(1, entries))))
            except OSError as error:
                raise _unusable(str(self._path), f"it cannot be written ({error.strerror})") from error


def _unusable(source: str, why: str) -> IdentityError:
    return IdentityError(
        CREDENTIALS_UNUSABLE, f"{source} is refused: {why}.", field=source, hint="Restore it from a copy."
    )
