"""Where snapshots lie: one sealed file, and the key that opens it; written beside the loop, never half there.

Each generation has its own file, and the log decides which one counts: it names the newest complete one by its digest.
So a crash at any moment leaves either the old snapshot or the new one in force.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from ringfence.audit import Record
from ringfence.keystore import Sealer
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.errors import SNAPSHOT_FAILED
from ringfence.plugin.sessions.revocations import History, begun_record, taken_record
from ringfence.plugin.sessions.snapshot import SALT_BYTES, Header, open_snapshot, refused, seal_snapshot
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.trust.files import read, sync_folder, write_new
from ringfence.trust.keys import only_the_owner

KEY_BYTES: Final = 32
_KEY_CONTEXT: Final = b"ringfence session snapshot key"
_WRITE_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"sessions-([0-9]{1,19})\.sealed(\.new)?")

Random = Callable[[int], bytes]
Journal = Callable[[Record], Awaitable[None]]
"""Makes a record durable; it returns only then."""


class Vault:
    """The snapshots of one gateway's sessions in `folder`, under `key` (32 bytes)."""

    def __init__(self, folder: Path, *, gateway: str, key: bytes) -> None:
        self._folder = folder
        self._gateway = gateway
        self._key = key

    async def save(self, store: MemorySessions, *, generation: int, journal: Journal, random: Random) -> None:
        """Writes the snapshot `generation`, which must be greater than any that the log knows, in small steps.

        Raises `session.snapshot_failed`, and what `journal` raises; the snapshot before counts then.
        """
        await journal(begun_record(generation))
        header = Header(1, self._gateway, generation, random(SALT_BYTES))
        path = self._path(generation)
        try:
            digest = await self._write(path, seal_snapshot(store, header, self._key))
        except OSError as error:
            raise GateError(
                SNAPSHOT_FAILED,
                f"The sessions could not be written to {path}: {error.strerror}.",
                field=str(path),
                hint="Mend the disk. Sessions go on; after a restart those of the snapshot before are there.",
            ) from error
        await journal(taken_record(generation, digest))
        await asyncio.to_thread(self._prune, generation)

    def restore(self, store: MemorySessions, history: History, *, now: int) -> int:
        """Fills an empty store from the newest snapshot that the log names; how many sessions live on.

        Blocks; to be called before the gateway serves. Raises `session.snapshot_refused`, with nothing in the store.
        """
        if not history.digest:
            return 0
        path = self._path(history.generation)
        try:
            with open(path, "rb", opener=_open) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != history.digest:
                    raise refused("its digest is not the one in the audit log")
                file.seek(0)
                opened = open_snapshot(
                    _pieces(file), gateway=self._gateway, generation=history.generation, key=self._key
                )
                for session, due in opened:
                    if due > now and len(store) < store.capacity and history.revives(session):
                        store.add(session, now=now, due=due)
        except OSError as error:
            raise refused(f"{path} cannot be read ({error.strerror})") from error
        except GateError:
            store.clear()
            raise
        return len(store)

    def _path(self, generation: int) -> Path:
        return self._folder / f"sessions-{generation}.sealed"

    async def _write(self, path: Path, pieces: Iterator[bytes]) -> str:
        temporary = path.with_suffix(".sealed.new")
        digest, held = hashlib.sha256(), bytearray()
        file = await asyncio.to_thread(_begin, temporary)
        try:
            for piece in pieces:
                held += piece
                # Requests are decided between two steps.
                await asyncio.sleep(0)
                if len(held) >= _WRITE_BYTES:
                    await asyncio.to_thread(_put, file, digest.update, bytes(held))
                    held.clear()
            await asyncio.to_thread(_put, file, digest.update, bytes(held))
            await asyncio.to_thread(os.fsync, file.fileno())
        finally:
            file.close()
        await asyncio.to_thread(_commit, temporary, path)
        return digest.hexdigest()

    def _prune(self, newest: int) -> None:
        for path in self._folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if name is not None and int(name[1]) < newest:
                path.unlink(missing_ok=True)


def snapshot_key(path: Path, *, sealer: Sealer | None, random: Random) -> bytes:
    """The key of the snapshots, which is made where there is none: in a file (mode 0600), sealed to this host or not.

    Raises `TrustError` where others than its owner may use the file, and what the sealer raises.
    """
    if not path.exists():
        key = random(KEY_BYTES)
        write_new(path, key if sealer is None else sealer.seal(key, _KEY_CONTEXT), 0o600)
        return key
    held = read(path, only_the_owner)
    key = held if sealer is None else sealer.unseal(held, _KEY_CONTEXT)
    if len(key) != KEY_BYTES:
        raise refused(f"{path} does not hold a key of {KEY_BYTES} bytes")
    return key


def _begin(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _put(file: BinaryIO, update: Callable[[bytes], None], data: bytes) -> None:
    update(data)
    file.write(data)
    file.flush()


def _commit(temporary: Path, path: Path) -> None:
    os.replace(temporary, path)
    sync_folder(path.parent)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_WRITE_BYTES):
        yield piece
