"""Reads the primitive values of a WebAssembly binary off bytes; running short or too long is an error with its offset.

Source: WebAssembly Core Specification 3.0, sections 5.1 and 5.2.
"""

from __future__ import annotations

from ringfence.agent.errors import MODULE_INVALID, MODULE_TOO_LARGE, SandboxError
from ringfence.agent.sandbox.wasm.values import BOUNDS


class MalformedModule(SandboxError):  # noqa: N818 - named for what the bytes are
    """Bytes that are no WebAssembly module; `what` is a clause, `offset` where it was found."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(MODULE_INVALID, f"The module does not decode: {what}, at offset {offset:#x}.", field="module")
        self.what = what
        self.offset = offset


class OversizedModule(SandboxError):  # noqa: N818 - as above
    """A module with more of something than this decoder takes."""

    def __init__(self, what: str, count: int, most: int, offset: int) -> None:
        self.what = f"{count} {what}, more than {most}"
        super().__init__(MODULE_TOO_LARGE, f"The module has {self.what}, at offset {offset:#x}.", field="module")
        self.offset = offset


class Reader:
    """Takes values off `data` from `at` to `end`."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def byte(self) -> int:
        """One byte."""
        at = self.at
        if at >= self.end:
            raise MalformedModule("it ends in the middle of a value", at)
        self.at = at + 1
        return self.data[at]

    def u32(self) -> int:
        """An unsigned LEB128 of 32 bits."""
        at = self.at
        if at < self.end and (byte := self.data[at]) < 0x80:  # most are this short
            self.at = at + 1
            return byte
        return self._unsigned(32)

    def u64(self) -> int:
        """An unsigned LEB128 of 64 bits."""
        return self._unsigned(64)

    def s32(self) -> int:
        """A signed LEB128 of 32 bits."""
        return self._signed(32)

    def s33(self) -> int:
        """A signed LEB128 of 33 bits: a type's index, or a negative short form."""
        return self._signed(33)

    def s64(self) -> int:
        """A signed LEB128 of 64 bits."""
        return self._signed(64)

    def skip(self, count: int) -> int:
        """Pass over `count` bytes; returns where they began."""
        start = self.at
        if count > self.end - start:
            raise MalformedModule(f"{count} bytes run past the end of what holds them", start)
        self.at = start + count
        return start

    def count(self, what: str) -> int:
        """The length of a vector of `what`, at most its bound."""
        at = self.at
        count = self.u32()
        if count > BOUNDS[what]:
            raise OversizedModule(what, count, BOUNDS[what], at)
        if count > self.end - self.at:
            raise MalformedModule(f"a vector of {count} {what} does not fit into its section", at)
        return count

    def indices(self, what: str) -> tuple[int, ...]:
        """A vector of indices."""
        u32 = self.u32
        return tuple([u32() for _ in range(self.count(what))])

    def name(self) -> str:
        """A name: bytes that are UTF-8."""
        at = self.at
        size = self.u32()
        if size > BOUNDS["bytes of a name"]:
            raise OversizedModule("bytes of a name", size, BOUNDS["bytes of a name"], at)
        start = self.skip(size)
        try:
            return self.data[start : self.at].decode()
        except UnicodeDecodeError as error:
            raise MalformedModule("a name is not UTF-8", start) from error

    def _unsigned(self, bits: int) -> int:
        start = self.at
        value = 0
        for shift in range(0, bits, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> bits:
                    raise MalformedModule(f"a number has more than {bits} bits", start)
                return value
        raise MalformedModule(f"a number of {bits} bits is written too long", start)

    def _signed(self, bits: int) -> int:
        start = self.at
        value = 0
        for shift in range(0, bits, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte & 0x40:
                    value -= 1 << (shift + 7)
                if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
                    raise MalformedModule(f"a number has more than {bits} bits", start)
                return value
        raise MalformedModule(f"a number of {bits} bits is written too long", start)
