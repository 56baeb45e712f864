"""Values that a configuration file writes as one string, and what a string that is refused should have been."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PosixPath
from types import MappingProxyType
from typing import Annotated, Final, Protocol, Self, runtime_checkable

import msgspec

MAX_SOCKET_PATH: Final = 107
"""Bytes of a Unix socket's path that Linux takes (unix(7): `sun_path` holds 108, with the zero at the end)."""

_KEY_ID = r"^rf1[A-Za-z0-9_-]{43}\Z"
_SHA256 = r"^[0-9a-f]{64}\Z"
_PCR = r"^(?:[0-9]|1[0-9]|2[0-3])\Z"

KeyId = Annotated[str, msgspec.Meta(pattern=_KEY_ID)]
Sha256 = Annotated[str, msgspec.Meta(pattern=_SHA256)]
PcrIndex = Annotated[str, msgspec.Meta(pattern=_PCR)]

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        _KEY_ID: "a key id: rf1 and 43 characters",
        _SHA256: "a SHA-256 in 64 lower-case hex digits",
        _PCR: "the number of a PCR, 0 to 23",
    }
)
"""Pattern -> what it stands for, because a regular expression tells few people what to write."""


@runtime_checkable
class Written(Protocol):
    """A type that reads itself from the string in a file; `str(value)` is what `ringfence config check` shows."""

    @classmethod
    def from_text(cls, text: str, folder: Path) -> Self:
        """The value that `text` writes in a file in `folder`. Raises `ValueError` that says what was expected."""
        ...


class SocketPath(PosixPath):
    """The path of a Unix socket, short enough for the kernel; a relative one is resolved against the file's folder."""

    @classmethod
    def from_text(cls, text: str, folder: Path) -> Self:
        """The socket at `text`. Raises `ValueError` where its path is empty or too long."""
        path = cls(resolved(text, folder))
        size = len(os.fsencode(path))
        if size > MAX_SOCKET_PATH:
            raise ValueError(f"Expected a socket's path of at most {MAX_SOCKET_PATH} bytes; {path} has {size}")
        return path


def resolved(text: str, folder: Path) -> Path:
    """The path that `text` writes in a file in `folder`. Raises `ValueError` where it can be none."""
    if not text or "\0" in text:
        raise ValueError("Expected a path: a string that is not empty")
    return folder / text
