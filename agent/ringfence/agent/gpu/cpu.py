"""The CPU device: the catalogue's kernels as one WebAssembly module whose linear memory is the job's pool.

A kernel cannot name an address outside that memory: past its end it traps, which is a `gpu.fault`. The memory starts
at zero and grows with the job's allocations, so a trap comes at most a page after the last of them. Below the pool lie
the module's stack and the argument block, in which nothing outlives a launch.
"""

from __future__ import annotations

import ctypes
import functools
import pkgutil
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import wasmtime

from ringfence.agent.errors import DEVICE_ARGUMENT, DEVICE_FAULT, SandboxError
from ringfence.agent.gpu.catalogue import KERNELS, check_launch
from ringfence.agent.gpu.pool import ALIGNMENT, MAX_POOL, Pool

_PAGE = 65_536
_NAME = "cpu"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The catalogue's code, which devices may share; each has a memory of its own."""

    engine: wasmtime.Engine
    module: wasmtime.Module


class CpuDevice:
    """A `GpuDevice` on the CPU. `pool_bytes` is the job's limit, at most `MAX_POOL`; commands finish before returning.
    `catalogue` is the compiled catalogue where there is one already.

    Raises `gpu.bad_argument` for a pool that is larger.
    """

    def __init__(self, pool_bytes: int, catalogue: Catalogue | None = None) -> None:
        if not 0 <= pool_bytes <= MAX_POOL:
            raise SandboxError(
                DEVICE_ARGUMENT,
                f"The CPU device has no pool of {pool_bytes} bytes.",
                field="gpu_memory",
                hint=f"Ask for at most {MAX_POOL}.",
            )
        catalogue = catalogue or _compile()
        self._store = wasmtime.Store(catalogue.engine)
        exports = wasmtime.Instance(self._store, catalogue.module, []).exports(self._store)
        memory = exports["memory"]
        if not isinstance(memory, wasmtime.Memory):
            raise TypeError("catalogue.wasm exports no memory")
        self._memory = memory
        self._launchers = {name: _function(exports, f"launch_{name}") for name in KERNELS}
        self._arguments_at = _function(exports, "ringfence_arguments")(self._store)
        start = -(-_function(exports, "ringfence_pool")(self._store) // ALIGNMENT) * ALIGNMENT
        self._pool = Pool(start, pool_bytes)
        limit = max(_pages(start + pool_bytes), memory.size(self._store)) * _PAGE
        self._store.set_limits(memory_size=limit, memories=1, tables=1, table_elements=16, instances=1)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return _NAME

    @property
    def peak_bytes(self) -> int:
        """The most bytes of the pool that were in use at one time."""
        return self._pool.peak_bytes

    def alloc(self, size: int) -> int:
        """See `GpuDevice.alloc`. Also 0 when the host itself has no memory left."""
        if not self._pool.fits(size):
            return 0
        missing = _pages(self._pool.end_of(size)) - self._memory.size(self._store)
        if missing > 0:
            try:
                self._memory.grow(self._store, missing)
            except wasmtime.WasmtimeError:
                return 0
        return self._pool.reserve(size)

    def write(self, address: int, data: bytes) -> None:
        """See `GpuDevice.write`."""
        self._pool.check(address, len(data))
        ctypes.memmove(self._host_address(address), data, len(data))

    def read(self, address: int, length: int) -> bytes:
        """See `GpuDevice.read`."""
        self._pool.check(address, length)
        return ctypes.string_at(self._host_address(address), length)

    def copy(self, destination: int, source: int, size: int) -> None:
        """See `GpuDevice.copy`."""
        self._pool.check(destination, size)
        self._pool.check(source, size)
        ctypes.memmove(self._host_address(destination), self._host_address(source), size)

    def launch(self, kernel: str, grid: int, block: int, arguments: Sequence[int]) -> None:
        """See `GpuDevice.launch`."""
        for pointer in check_launch(kernel, grid, block, arguments).pointers(arguments):
            self._pool.check(pointer, 1)
        raw = struct.pack(f"<{len(arguments)}Q", *arguments)
        ctypes.memmove(self._host_address(self._arguments_at), raw, len(raw))
        try:
            self._launchers[kernel](self._store, grid, block)
        except wasmtime.Trap as trap:
            raise SandboxError(
                DEVICE_FAULT,
                f"The kernel {kernel} left the device's memory and was stopped.",
                hint="Check its element count against the sizes of its allocations.",
            ) from trap

    def sync(self) -> None:
        """See `GpuDevice.sync`; here nothing is ever outstanding."""

    def close(self) -> None:
        """See `GpuDevice.close`."""
        self._store.close()

    def _host_address(self, address: int) -> int:
        return ctypes.addressof(self._memory.data_ptr(self._store).contents) + address


def prepare() -> Callable[[int], CpuDevice]:
    """Compile the catalogue once; what is returned opens devices that share its code."""
    return functools.partial(CpuDevice, catalogue=_compile())


def _compile() -> Catalogue:
    config = wasmtime.Config()
    config.parallel_compilation = False  # a thread pool is not allowed in a broker
    engine = wasmtime.Engine(config)
    return Catalogue(engine, wasmtime.Module(engine, pkgutil.get_data(__package__, "catalogue.wasm") or b""))


def _function(exports: Mapping[str, object], name: str) -> wasmtime.Func:
    function = exports[name]
    if not isinstance(function, wasmtime.Func):
        raise TypeError(f"catalogue.wasm exports no function {name}")
    return function


def _pages(size: int) -> int:
    return -(-size // _PAGE)
