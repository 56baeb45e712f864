"""Secrets that another server has given to this gateway, each in a file that its owner alone may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ringfence.plugin.identity.errors import SETTINGS_INVALID, IdentityError
from ringfence.trust import files


def read_secret(path: Path) -> str:
    """The secret in the file at `path`: printable ASCII without spaces, white space around it dropped.

    Raises `identity.settings_invalid` where others may read it or it holds none, and what reading a file raises.
    """
    secret = files.read(path, _its_owners).strip()
    if not secret or not all(33 <= octet < 127 for octet in secret):
        raise IdentityError(SETTINGS_INVALID, f"{path} does not hold a secret.", field=str(path))
    return secret.decode("ascii")


def _its_owners(status: os.stat_result, path: Path) -> None:
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise IdentityError(
            SETTINGS_INVALID,
            f"{path} can be read or changed by others than its owner.",
            field=str(path),
            hint=f"Run: chmod 600 {path}; and have another secret issued.",
        )
