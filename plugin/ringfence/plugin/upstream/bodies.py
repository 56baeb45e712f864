"""A body that is hashed while it arrives and held until it is verified: in memory, and beyond that in a file."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Final

from ringfence import httpsig
from ringfence.plugin.upstream.errors import BODY_MISMATCH, BODY_TOO_LARGE, UpstreamError

CHUNK: Final = 256 * 1024
EMPTY: Final = httpsig.content_digest(b"")


class HeldBody:
    """At most `body_bytes`, of which `memory_bytes` in memory; the file has no name and is gone when this is closed."""

    def __init__(self, *, memory_bytes: int, body_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._body_bytes = body_bytes
        self._hash = hashlib.sha256()
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    async def add(self, part: bytes) -> None:
        """The next part. Raises `assertion.body_too_large`."""
        self.size += len(part)
        if self.size > self._body_bytes:
            raise UpstreamError(
                BODY_TOO_LARGE, f"The body has more than {self._body_bytes} bytes.", field="body", hint="Send less."
            )
        self._hash.update(part)
        self._memory += part
        if len(self._memory) > self._memory_bytes:
            await self._spill()

    def verify(self, content_digest: str) -> None:
        """Raises `assertion.body_mismatch` unless the whole body is the one that was signed.

        A request whose assertion names no digest must have no body: nobody signed one.
        """
        if not hmac.compare_digest(_field(self._hash.digest()), content_digest or EMPTY):
            raise UpstreamError(
                BODY_MISMATCH,
                "The body is not the one that was signed; it was changed or cut short on the way.",
                field="content-digest",
                hint="Send the request again.",
            )

    async def parts(self) -> AsyncIterator[bytes]:
        """The verified body, in parts of at most `CHUNK` bytes; one empty part for an empty body."""
        if self._file is None:
            yield bytes(self._memory)
            return
        await self._spill()
        await asyncio.to_thread(self._file.seek, 0)
        left = self.size
        while left > 0:
            part = await asyncio.to_thread(self._file.read, min(CHUNK, left))
            left -= len(part)
            if not part:
                raise UpstreamError(BODY_MISMATCH, "The held body ended early.", field="body")
            yield part

    def close(self) -> None:
        """Lets go of what is held."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()

    async def _spill(self) -> None:
        # The disk must not hold up other requests.
        if self._file is None:
            self._file = await asyncio.to_thread(tempfile.TemporaryFile)
        held, self._memory = bytes(self._memory), bytearray()
        await asyncio.to_thread(self._file.write, held)


def _field(digest: bytes) -> str:
    return f"sha-256=:{base64.b64encode(digest).decode('ascii')}:"
