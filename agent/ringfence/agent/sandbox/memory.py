"""The guest's linear memory, kept by the worker itself so that a refused growth is known as one.

wasmtime's own limiter answers a `memory.grow` beyond the limit with -1 and tells nobody. This memory is handed to
wasmtime through its host memory creator (wasmtime C API, `wasmtime/config.h`): the whole reservation is mapped without
access, and growing makes more of it readable and writable. Host calls reach the guest's bytes through it, bounds
checked. Nothing in the callbacks may raise: ctypes would turn an exception into success.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from wasmtime import Config
from wasmtime import _bindings as wasmtime_c

from ringfence.agent.errors import GUEST_ARGUMENT, SandboxError

_PROT_NONE, _PROT_READ_WRITE = 0, 3
_MAP_PRIVATE_ANONYMOUS_NORESERVE = 0x02 | 0x20 | 0x4000
_MAP_FAILED = ctypes.c_size_t(-1).value
_NO_ERROR = 0


class GuestMemory:
    """One linear memory of at most `limit` bytes; `watch` hears each new size in bytes and must not raise.

    `denied` is the size in bytes that the guest asked for last and did not get, or 0 when it has what it asked for.
    """

    def __init__(self, limit: int, watch: Callable[[int], None]) -> None:
        self.size = 0
        self.denied = 0
        self._limit = limit
        self._watch = watch
        self._base = 0
        self._reserved = 0
        self._libc = ctypes.CDLL(None)
        self._libc.mmap.restype = ctypes.c_size_t
        self._libc.mmap.argtypes = (*[ctypes.c_size_t] * 2, *[ctypes.c_int] * 3, ctypes.c_long)
        self._libc.mprotect.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
        # ctypes callbacks live as long as the objects that wrap them.
        self._get_callback = wasmtime_c.wasmtime_memory_get_callback_t(self._get)
        self._grow_callback = wasmtime_c.wasmtime_memory_grow_callback_t(self._grow)
        self._new_callback = wasmtime_c.wasmtime_new_memory_callback_t(self._new)
        self._finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_keep)

    def install(self, config: Config) -> None:
        """Make every memory of an engine built from `config` this one."""
        creator = wasmtime_c.wasmtime_memory_creator_t(None, self._new_callback, self._finalizer)
        wasmtime_c.wasmtime_config_host_memory_creator_set(config.ptr(), ctypes.byref(creator))

    def read(self, offset: int, length: int) -> bytes:
        """Guest bytes. Raises `SandboxError` (`sandbox.bad_argument`) outside the memory."""
        self.check(offset, length)
        return ctypes.string_at(self._base + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Copy `data` into the guest. Raises `SandboxError` (`sandbox.bad_argument`) outside the memory."""
        self.check(offset, len(data))
        ctypes.memmove(self._base + offset, data, len(data))

    def check(self, offset: int, length: int) -> None:
        """Raise unless `length` bytes from `offset` lie in the memory."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise SandboxError(
                GUEST_ARGUMENT,
                f"The guest passed {length} bytes at address {offset}, outside its memory of {self.size} bytes.",
                hint="Check the pointers and lengths that the guest passes to the host.",
            )

    def _new(self, _env: Any, _type: Any, minimum: int, _maximum: int, reserved: int, guard: int, out: Any) -> int:
        if self._base or minimum > min(self._limit, reserved):
            self.denied = minimum
            return _refusal(b"the memory is larger than its limit")
        base = self._libc.mmap(0, reserved + guard, _PROT_NONE, _MAP_PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
        if base == _MAP_FAILED or self._libc.mprotect(base, minimum, _PROT_READ_WRITE) != 0:
            return _refusal(b"the memory cannot be mapped")
        self._base, self._reserved, self.size = base, reserved, minimum
        self._watch(minimum)
        memory = out[0]
        memory.env = None
        memory.get_memory, memory.grow_memory = self._get_callback, self._grow_callback
        memory.finalizer = self._finalizer
        return _NO_ERROR

    def _get(self, _env: Any, size: Any, capacity: Any) -> int:
        size[0], capacity[0] = self.size, self._reserved
        return self._base

    def _grow(self, _env: Any, size: int) -> int:
        within = size <= min(self._limit, self._reserved)
        if not within or self._libc.mprotect(self._base, size, _PROT_READ_WRITE) != 0:
            self.denied = size
            return _refusal(b"the memory has reached its limit")
        self.size, self.denied = size, 0
        self._watch(size)
        return _NO_ERROR


def _keep(_env: Any) -> None:
    """The memory ends with its process."""


def _refusal(message: bytes) -> int:
    error = wasmtime_c.wasmtime_error_new(ctypes.create_string_buffer(message))
    return int(ctypes.cast(error, ctypes.c_void_p).value or 0)
