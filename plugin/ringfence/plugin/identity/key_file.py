"""An issuer's JWK set in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ringfence.config.files import read_bounded
from ringfence.plugin.identity.jwks import MAX_SET


class KeyFile:
    """The file at `path`, at most as large as a JWK set may be."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> bytes:
        return await asyncio.to_thread(read_bounded, self._path, MAX_SET)
