"""The values of SPOP 2.0: variable-length integers, strings and typed data. Pure.

Source: HAProxy, doc/SPOE.txt, sections 3.1 and 3.2. A length is never believed beyond the bytes that are there.
"""

from __future__ import annotations

from typing import Final

from ringfence.plugin.hosts.errors import PROTOCOL_VIOLATED, HostError

MAX_INTEGER_BYTES: Final = 10

_BOOL: Final = 1
_UINT32: Final = 3
_STRING: Final = 8
_TRUE: Final = 0x10

Value = None | bool | int | str | bytes | tuple[int, bytes]
"""An address is its IP version and its bytes."""


def violated(what: str) -> HostError:
    """The error for a frame that breaks the protocol."""
    return HostError(PROTOCOL_VIOLATED, f"HAProxy and the agent disagree: {what}.", field="frame")


def encode_integer(value: int) -> bytes:
    """A number from 0 to 2^64 - 1."""
    if value < 240:
        return bytes((value,))
    out = bytearray(((value & 0xFF) | 240,))
    value = (value - 240) >> 4
    while value >= 128:
        out.append((value & 0xFF) | 128)
        value = (value - 128) >> 7
    out.append(value)
    return bytes(out)


def encode_string(value: bytes) -> bytes:
    """A length and its bytes."""
    return encode_integer(len(value)) + value


def encode_value(value: bool | int | str) -> bytes:
    """Typed data: a boolean, an unsigned number or a text."""
    if value is True or value is False:
        return bytes((_BOOL | (_TRUE if value else 0),))
    if isinstance(value, int):
        return bytes((_UINT32,)) + encode_integer(value)
    return bytes((_STRING,)) + encode_string(value.encode("ascii"))


class Reader:
    """Reads values from the bytes of one frame. Every method raises `hosts.protocol_violated` past their end."""

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self._end = len(data)
        self.position = position

    @property
    def ended(self) -> bool:
        """Whether all bytes are read."""
        return self.position >= self._end

    def byte(self) -> int:
        """One byte."""
        if self.position >= self._end:
            raise violated("a frame ends early")
        self.position += 1
        return self._data[self.position - 1]

    def integer(self) -> int:
        """A variable-length integer below 2^64."""
        value = self.byte()
        if value < 240:
            return value
        shift = 4
        for _ in range(MAX_INTEGER_BYTES):
            part = self.byte()
            value += part << shift
            shift += 7
            if part < 128:
                if value >= 1 << 64:
                    break
                return value
        raise violated("an integer is too large")

    def take(self, length: int) -> bytes:
        """`length` bytes."""
        start = self.position
        if length > self._end - start:
            raise violated("a value is longer than its frame")
        self.position = start + length
        return self._data[start : start + length]

    def string(self) -> bytes:
        """A string's bytes."""
        return self.take(self.integer())

    def name(self) -> str:
        """A string that is a name."""
        raw = self.string()
        if not raw.isascii() or len(raw) > 128:
            raise violated("a name is not one")
        return raw.decode("ascii")

    def value(self) -> Value:
        """Typed data."""
        kind = self.byte()
        match kind & 0x0F:
            case 8:
                raw = self.string()
                # Header values of other bytes are refused later, where their field is known.
                return raw.decode("latin-1")
            case 9:
                return self.string()
            case 0:
                return None
            case 1:
                return bool(kind & _TRUE)
            case 2 | 3 | 4 | 5:
                return self.integer()
            case 6:
                return 4, self.take(4)
            case 7:
                return 6, self.take(16)
        raise violated("a value has an unknown type")

    def pairs(self) -> dict[str, Value]:
        """Names with their values, to the end of the frame; a repeated name is refused."""
        found: dict[str, Value] = {}
        while not self.ended:
            name = self.name()
            if name in found or len(found) >= 64:
                raise violated("a name is repeated, or there are too many")
            found[name] = self.value()
        return found
