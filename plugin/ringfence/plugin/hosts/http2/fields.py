"""Field blocks: HPACK (RFC 7541) by the `hpack` library, and what a request's fields may be (RFC 9113 section 8).

The library takes 61 µs for a block of ten fields. A peer that repeats its request sends the same few bytes each time:
indices into the table, and literals that are not added to it. What such a block decoded to is remembered until another
block may have changed the table.
"""

from __future__ import annotations

import re
from typing import Final

import hpack

from ringfence.plugin.hosts.http2.errors import H2ConnectionError, H2Error, H2StreamError

Fields = tuple[tuple[str, str], ...]

TABLE_BYTES: Final = 4096
"""The dynamic table's most: what HPACK begins with, and what is never changed (RFC 7541 section 4.2)."""

_REMEMBERED: Final = 16
_PSEUDO: Final = frozenset((":method", ":scheme", ":path", ":authority"))
_REQUIRED: Final = frozenset((":method", ":scheme", ":path"))
# RFC 9113 section 8.2.2: what only a connection of HTTP/1 has.
_OF_CONNECTIONS: Final = frozenset(("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"))
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(r"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?")


class FieldDecoder:
    """The receiving half of a connection's HPACK state. `header_bytes` bounds a list (RFC 9113 section 6.5.2)."""

    def __init__(self, header_bytes: int) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=header_bytes)
        self._decoder.max_allowed_table_size = TABLE_BYTES
        self._remembered: dict[bytes, Fields] = {}

    def decode(self, block: bytes) -> Fields:
        """The fields of one whole block, as received. Raises COMPRESSION_ERROR or ENHANCE_YOUR_CALM for the connection,
        since after either the table is out of step."""
        fields = self._remembered.get(block)
        if fields is not None:
            return fields
        try:
            decoded = self._decoder.decode(block, raw=True)
        except hpack.OversizedHeaderListError as error:
            raise H2ConnectionError(H2Error.ENHANCE_YOUR_CALM, "A header list is longer than allowed.") from error
        except hpack.HPACKError as error:
            raise H2ConnectionError(H2Error.COMPRESSION_ERROR, "A field block is no HPACK.") from error
        fields = tuple((str(name, "latin-1"), str(value, "latin-1")) for name, value in decoded)
        if leaves_table(block):
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[block] = fields
        else:
            self._remembered.clear()
        return fields


def leaves_table(block: bytes) -> bool:
    """Whether a block that has been decoded has surely left the table as it was (RFC 7541 section 6).

    It has where all are indexed fields or literals without indexing, each in its shortest form; "no" is always safe.
    """
    offset, size = 0, len(block)
    while offset < size:
        first = block[offset]
        offset += 1
        if first >= 0x80:
            if first == 0xFF:
                return False
            continue
        if first >= 0x20 or first & 0x0F == 0x0F:
            return False
        for _ in range(1 if first & 0x0F else 2):
            length = block[offset] & 0x7F
            if length == 0x7F:
                return False
            offset += 1 + length
    return True


def check_request(fields: Fields) -> int | None:
    """Checks a request's fields; returns its declared content length. Raises PROTOCOL_ERROR for the stream."""
    pseudo: set[str] = set()
    regular = False
    declared = None
    for name, value in fields:
        if name.startswith(":"):
            if regular or name not in _PSEUDO or name in pseudo:
                raise _malformed("a pseudo-header field is unknown, repeated or out of place")
            pseudo.add(name)
        else:
            regular = True
            _check_regular(name, value)
        if not _VALUE.fullmatch(value):
            raise _malformed("a field's value has a forbidden character")
        if name == ":path" and not value:
            raise _malformed("the path is empty")
        if name == "content-length":
            declared = _content_length(value, declared)
    if not pseudo >= _REQUIRED:
        raise _malformed("a pseudo-header field is missing")
    return declared


def check_trailers(fields: Fields) -> None:
    """Checks what follows a request's body. Raises PROTOCOL_ERROR for the stream."""
    for name, value in fields:
        _check_regular(name, value)
        if not _VALUE.fullmatch(value):
            raise _malformed("a trailer's value has a forbidden character")


def _check_regular(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise _malformed("a field's name is not lower case, or no token")
    if name in _OF_CONNECTIONS or (name == "te" and value != "trailers"):
        raise _malformed("a field belongs to a connection of HTTP/1")


def _content_length(value: str, before: int | None) -> int:
    # Two lengths are two ideas of where a message ends, even where they agree.
    if before is not None or not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise _malformed("the content length is repeated or no number")
    return int(value)


def _malformed(why: str) -> H2StreamError:
    return H2StreamError(H2Error.PROTOCOL_ERROR, f"A request is malformed: {why}.")
