"""Reading a configuration file, with a bound on its size and its kind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ringfence.config.errors import UNREADABLE, ConfigError

MAX_FILE_BYTES = 1 << 20


def read_bounded(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes; `ConfigError` config.unreadable otherwise."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(UNREADABLE, "this is not a regular file.", source=str(path))
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the path is not usable"
        raise ConfigError(
            UNREADABLE, f"cannot be read: {reason}.", source=str(path), hint="Check the path and its mode."
        ) from error
    if len(data) > limit:
        raise ConfigError(UNREADABLE, f"the file is larger than {limit} bytes.", source=str(path))
    return data


def _open_at_once(path: str, flags: int) -> int:
    """A FIFO in the file's place must not make the caller wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
