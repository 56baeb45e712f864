"""The memories of a worker's engine, kept by the worker itself: its shim's, of which the last page is shared with the
agent, and its guest's, so that a refused growth is known as one.

wasmtime's own limiter answers a `memory.grow` beyond the limit with -1 and tells nobody. These memories are handed to
wasmtime through its host memory creator (wasmtime C API, `wasmtime/config.h`): the whole reservation is mapped without
access, and growing makes more of it readable and writable. Host calls reach the guest's bytes through it, bounds
checked. Nothing in the callbacks may raise: ctypes would turn an exception into success.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any, Final

from wasmtime import Config
from wasmtime import _bindings as wasmtime_c

from ringfence.agent.errors import GUEST_ARGUMENT, SandboxError
from ringfence.agent.mapping import Mapper, bytes_at
from ringfence.agent.sandbox import progress, shim

_NO_ERROR: Final = 0
# What wasmtime reserves for a memory unless told otherwise (`wasmtime::Config`, memory_reservation, memory_guard_size).
_RESERVED: Final = 4 << 30
_GUARD: Final = 32 << 20
_VECTOR: Final = struct.Struct("<II").unpack_from
_VECTOR_BYTES: Final = 8
_PUT_U32: Final = struct.Struct("<I").pack_into
_PUT_U64: Final = struct.Struct("<Q").pack_into


class GuestMemory:
    """The two memories of one engine: the first that is made from it is the shim's, the second the guest's.

    It may be made before a process forks. `begin` sets the guest's limit, `share` puts the progress page under the
    shim. `size` and `denied` are the guest's: `denied` is the size in bytes that it asked for last and did not get, or
    0 when it has what it asked for. `shim` are the bytes of the shim's memory. Offsets and lengths of the guest's are
    unsigned.
    """

    def __init__(self) -> None:
        self.size = 0
        self.denied = 0
        self._limit = 0
        self._watch: Callable[[int], None] = _nobody
        self._mapper = Mapper()
        self._shim_base = self._mapper.reserve(_RESERVED + _GUARD)
        self._mapper.open(self._shim_base, shim.MEMORY_BYTES)
        self._shim_made = False
        self.shim = bytes_at(self._shim_base, shim.MEMORY_BYTES)
        self._page = self.shim[shim.PROGRESS : shim.PROGRESS + progress.PAGE_BYTES]
        self._base = 0
        self._reserved = 0
        self._view(memoryview(b""))
        # ctypes callbacks live as long as the objects that wrap them.
        self._get_shim = wasmtime_c.wasmtime_memory_get_callback_t(self._shim_extent)
        self._grow_shim = wasmtime_c.wasmtime_memory_grow_callback_t(_never_grows)
        self._get_guest = wasmtime_c.wasmtime_memory_get_callback_t(self._guest_extent)
        self._grow_guest = wasmtime_c.wasmtime_memory_grow_callback_t(self._grow)
        self._new_callback = wasmtime_c.wasmtime_new_memory_callback_t(self._new)
        self._finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_keep)

    def install(self, config: Config) -> None:
        """Make the memories of an engine built from `config` these."""
        creator = wasmtime_c.wasmtime_memory_creator_t(None, self._new_callback, self._finalizer)
        wasmtime_c.wasmtime_config_host_memory_creator_set(config.ptr(), ctypes.byref(creator))

    def begin(self, limit: int, watch: Callable[[int], None]) -> None:
        """Hold the guest to `limit` bytes; `watch` hears each new size in bytes and must not raise."""
        self._limit, self._watch = limit, watch

    def share(self, status: int) -> memoryview:
        """Map the status file of descriptor `status` as the shim's last page; returns that page.

        It needs a system call that a locked-down worker gives up. Raises `SandboxError` (`sandbox.lockdown_failed`)
        when the kernel refuses.
        """
        self._mapper.file_at(self._shim_base + shim.PROGRESS, status, progress.PAGE_BYTES)
        return self._page

    def read(self, offset: int, length: int) -> memoryview:
        """The guest's bytes as they are now and will be. Raises `sandbox.bad_argument` outside the memory."""
        end = offset + length
        if end > self.size:
            raise self._outside(offset, length)
        return self._bytes[offset:end]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy `data` into the guest. Raises `SandboxError` (`sandbox.bad_argument`) outside the memory."""
        end = offset + len(data)
        if end > self.size:
            raise self._outside(offset, len(data))
        self._bytes[offset:end] = data

    def vector(self, offset: int) -> memoryview:
        """The guest's bytes whose u32 address and u32 length lie at `offset`. Raises `sandbox.bad_argument` outside."""
        size, memory = self.size, self._bytes
        if offset > size - _VECTOR_BYTES:
            raise self._outside(offset, _VECTOR_BYTES)
        address, length = _VECTOR(memory, offset)
        end = address + length
        if end > size:
            raise self._outside(address, length)
        return memory[address:end]

    def put_u32(self, offset: int, value: int) -> None:
        """Write a u32 into the guest. Raises `sandbox.bad_argument` outside the memory."""
        if offset > self.size - 4:
            raise self._outside(offset, 4)
        if offset & 3:
            _PUT_U32(self._bytes, offset, value)
        else:
            self._u32s[offset >> 2] = value

    def put_u64(self, offset: int, value: int) -> None:
        """Write a u64 into the guest. Raises `sandbox.bad_argument` outside the memory."""
        if offset > self.size - 8:
            raise self._outside(offset, 8)
        if offset & 7:
            _PUT_U64(self._bytes, offset, value)
        else:
            self._u64s[offset >> 3] = value

    def _view(self, memory: memoryview) -> None:
        """Reach the guest's bytes as `memory`; a word at its own place is written in half the time of another."""
        self._bytes, self._u32s, self._u64s = memory, memory.cast("I"), memory.cast("Q")

    def _outside(self, offset: int, length: int) -> SandboxError:
        return SandboxError(
            GUEST_ARGUMENT,
            f"The guest passed {length} bytes at address {offset}, outside its memory of {self.size} bytes.",
            hint="Check the pointers and lengths that the guest passes to the host.",
        )

    def _new(self, _env: Any, _type: Any, minimum: int, _maximum: int, reserved: int, guard: int, out: Any) -> int:
        if not self._shim_made:
            if minimum != shim.MEMORY_BYTES or reserved > _RESERVED or guard > _GUARD:
                return _refusal(b"the first memory is not the shim's")
            self._shim_made = True
            return self._hand_out(out, self._get_shim, self._grow_shim)
        if self._base or minimum > min(self._limit, reserved):
            self.denied = minimum
            return _refusal(b"the memory is larger than its limit")
        try:
            base = self._mapper.reserve(reserved + guard)
        except SandboxError:
            return _refusal(b"the memory cannot be reserved")
        if not self._mapper.open(base, minimum):
            return _refusal(b"the memory cannot be had")
        self._base, self._reserved, self.size = base, reserved, minimum
        self._view(bytes_at(base, reserved))
        self._grew(minimum)
        return self._hand_out(out, self._get_guest, self._grow_guest)

    def _hand_out(self, out: Any, get: Any, grow: Any) -> int:
        memory = out[0]
        memory.env = None
        memory.get_memory, memory.grow_memory = get, grow
        memory.finalizer = self._finalizer
        return _NO_ERROR

    def _shim_extent(self, _env: Any, size: Any, capacity: Any) -> int:
        size[0], capacity[0] = shim.MEMORY_BYTES, _RESERVED
        return self._shim_base

    def _guest_extent(self, _env: Any, size: Any, capacity: Any) -> int:
        size[0], capacity[0] = self.size, self._reserved
        return self._base

    def _grow(self, _env: Any, size: int) -> int:
        within = size <= min(self._limit, self._reserved)
        if not within or not self._mapper.open(self._base, size):
            self.denied = size
            return _refusal(b"the memory has reached its limit")
        self.size, self.denied = size, 0
        self._grew(size)
        return _NO_ERROR

    def _grew(self, size: int) -> None:
        progress.note(self._page, progress.MEMORY, size)
        self._watch(size)


def _nobody(_size: int) -> None:
    """Hears of the guest's memory until somebody asks to."""


def _keep(_env: Any) -> None:
    """The memories end with their process."""


def _never_grows(_env: Any, _size: int) -> int:
    return _refusal(b"the shim's memory does not grow")


def _refusal(message: bytes) -> int:
    error = wasmtime_c.wasmtime_error_new(ctypes.create_string_buffer(message))
    return int(ctypes.cast(error, ctypes.c_void_p).value or 0)
