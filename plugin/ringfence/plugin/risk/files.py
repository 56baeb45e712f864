"""State files: read at start, written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ringfence.plugin.risk.errors import STATE_UNREADABLE, STATE_UNWRITABLE, RiskError
from ringfence.plugin.risk.state import MAX_BYTES
from ringfence.trust.files import replace


def read_state(path: Path) -> bytes | None:
    """The bytes of a state file, None where there is none yet.

    Raises `RiskError` risk.state_unreadable where it is no regular file of bounded size, or others may write it.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise _unreadable(path, f"is not a regular file of at most {MAX_BYTES} bytes")
            if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
                raise _unreadable(path, "may be written by others than its owner, or belongs to somebody else")
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}") from error


def write_state(path: Path, data: bytes) -> None:
    """Puts `data` (mode 0600) in the place of `path`, durably; `RiskError` risk.state_unwritable."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(path, data)
    except OSError as error:
        raise RiskError(
            STATE_UNWRITABLE,
            f"{path} cannot be written: {error.strerror}.",
            field=str(path),
            hint="Look at the disk; the gateway goes on with what it has in memory.",
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    # A FIFO in the file's place must not make the gateway wait for a writer, nor a link lead it elsewhere.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def _unreadable(path: Path, why: str) -> RiskError:
    return RiskError(
        STATE_UNREADABLE,
        f"{path} {why}.",
        field=str(path),
        hint="Mend it, or move it away to begin again without what was learned.",
    )
