"""The durable list of one-time keys that this site has used: a key that is on it is never used again."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType

from ringfence.crypto import CryptoError
from ringfence.crypto.errors import KEY_SPENT
from ringfence.keystore.errors import IN_USE, UNWRITABLE, KeyStoreError
from ringfence.trust.errors import TrustError
from ringfence.trust.files import sync_folder
from ringfence.trust.keys import only_the_owner


class SpentKeys:
    """Key ids, one a line, in a file (mode 0600) that only grows. One process at a time holds it.

    `spend` returns once the line is on the disk, so a key that was used is always listed. After a write that failed
    the list refuses every key until it is opened anew.
    """

    def __init__(self, path: Path) -> None:
        """Opens the list at `path`, or begins one.

        Raises `KeyStoreError` keystore.in_use, keystore.unwritable; `TrustError` trust.unsafe_file where others than
        its owner may use it.
        """
        self._path = path
        self._lock = threading.Lock()
        self._failed = False
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            only_the_owner(os.fstat(self._descriptor), path)
            self._spent = self._read()
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise KeyStoreError(
                IN_USE, f"{path} is held by another process.", field=str(path), hint="End it, or give it its own list."
            ) from error
        except OSError as error:
            os.close(self._descriptor)
            raise self._unwritable(error) from error
        except TrustError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> SpentKeys:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def spend(self, key_id: str) -> None:
        """Marks the key as used, durably; `CryptoError` crypto.key_spent where it was used before.

        Raises `KeyStoreError` keystore.unwritable where that cannot be made durable: the key must not be used then.
        """
        with self._lock:
            if self._failed:
                raise self._unwritable(None)
            if key_id in self._spent:
                raise CryptoError(
                    KEY_SPENT,
                    f"The one-time key {key_id!r} was used before.",
                    field="key_id",
                    hint="Ask for the envelope again, sealed with a fresh key.",
                )
            try:
                self._append(key_id.encode() + b"\n")
            except OSError as error:
                self._failed = True
                raise self._unwritable(error) from error
            self._spent.add(key_id)

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)

    def _read(self) -> set[str]:
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            data = file.read()
        if data and not data.endswith(b"\n"):
            # A crash cut this line short before `spend` returned; end it, so that the next one stands alone.
            self._append(b"\n")
        sync_folder(self._path.parent)
        return set(data.decode("utf-8", "replace").split("\n"))

    def _append(self, line: bytes) -> None:
        if os.write(self._descriptor, line) != len(line):
            raise OSError(None, "the line was written in part")
        os.fdatasync(self._descriptor)

    def _unwritable(self, error: OSError | None) -> KeyStoreError:
        why = "an earlier write failed" if error is None else error.strerror
        return KeyStoreError(
            UNWRITABLE,
            f"{self._path} cannot be written ({why}), so no one-time key may be used.",
            field=str(self._path),
            hint="Mend the disk, then open the list anew.",
        )
