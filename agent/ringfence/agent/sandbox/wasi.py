"""The part of WASI preview 1 that a guest gets: standard input, output and error, clock, random, exit; no files.

Our own, because wasmtime's starts three threads for standard input and output, which a locked-down worker may not.
Descriptors other than 0, 1 and 2 do not exist. Sans-IO but for the clock and the random source, which are arguments.
Source: WebAssembly/WASI, phases/snapshot/docs.md (wasi_snapshot_preview1).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from ringfence.agent.errors import OUTPUT_LIMIT, SandboxError
from ringfence.agent.sandbox.hostcalls import HostFunction, Memory

MODULE = "wasi_snapshot_preview1"

_SUCCESS, _BADF, _INVAL, _SPIPE = 0, 8, 28, 70
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_RIGHT_READ, _RIGHT_WRITE = 1 << 1, 1 << 6
_MAX_VECTORS = 1024
_MAX_DIAGNOSTICS = 1024
_RANDOM_CHUNK = 64 * 1024
_MAX_READ = 1024 * 1024  # a longer read is answered short, so that no large copy is made
_U32 = 0xFFFF_FFFF


class GuestExit(Exception):  # noqa: N818 - an exit is no error until its status says so
    """The guest called `proc_exit`."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Wasi:
    """One guest's standard streams. `clock(number)` is nanoseconds of clock 0 (real) or 1 (monotonic)."""

    def __init__(
        self,
        memory: Memory,
        standard_input: memoryview,
        output_limit: int,
        *,
        clock: Callable[[int], int],
        random: Callable[[int], bytes],
    ) -> None:
        self.output = bytearray()
        self.diagnostics = bytearray()
        self._memory = memory
        self._input = standard_input
        self._at = 0
        self._output_limit = output_limit
        self._clock = clock
        self._random = random

    def functions(self) -> Mapping[str, HostFunction]:
        """Every function of the module, by its import name."""
        status = ("i32",)
        pair = ("i32", "i32")
        return {
            "args_get": HostFunction(pair, status, self._nothing),
            "args_sizes_get": HostFunction(pair, status, self._no_sizes),
            "environ_get": HostFunction(pair, status, self._nothing),
            "environ_sizes_get": HostFunction(pair, status, self._no_sizes),
            "clock_time_get": HostFunction(("i32", "i64", "i32"), status, self._clock_time_get),
            "fd_close": HostFunction(("i32",), status, self._fd_close),
            "fd_fdstat_get": HostFunction(pair, status, self._fd_fdstat_get),
            "fd_prestat_get": HostFunction(pair, status, self._no_folder),
            "fd_prestat_dir_name": HostFunction(("i32", "i32", "i32"), status, self._no_folder),
            "fd_read": HostFunction(("i32",) * 4, status, self._fd_read),
            "fd_seek": HostFunction(("i32", "i64", "i32", "i32"), status, self._fd_seek),
            "fd_write": HostFunction(("i32",) * 4, status, self._fd_write),
            "proc_exit": HostFunction(("i32",), (), self._proc_exit),
            "random_get": HostFunction(pair, status, self._random_get),
            "sched_yield": HostFunction((), status, self._nothing),
        }

    def _nothing(self, *_arguments: int) -> int:
        return _SUCCESS

    def _no_folder(self, *_arguments: int) -> int:
        return _BADF

    def _no_sizes(self, count: int, size: int) -> int:
        self._put(count, "<I", 0)
        self._put(size, "<I", 0)
        return _SUCCESS

    def _clock_time_get(self, clock: int, _precision: int, result: int) -> int:
        if clock not in (0, 1):
            return _INVAL
        self._put(result, "<Q", self._clock(clock))
        return _SUCCESS

    def _fd_close(self, descriptor: int) -> int:
        return _SUCCESS if descriptor in (_STDIN, _STDOUT, _STDERR) else _BADF

    def _fd_fdstat_get(self, descriptor: int, result: int) -> int:
        if descriptor not in (_STDIN, _STDOUT, _STDERR):
            return _BADF
        rights = _RIGHT_READ if descriptor == _STDIN else _RIGHT_WRITE
        # File type 0 is "unknown": not a terminal, so the guest's library buffers whole blocks.
        self._put(result, "<BxHxxxxQQ", 0, 0, rights, 0)
        return _SUCCESS

    def _fd_seek(self, descriptor: int, _offset: int, _whence: int, _result: int) -> int:
        return _SPIPE if descriptor in (_STDIN, _STDOUT, _STDERR) else _BADF

    def _fd_read(self, descriptor: int, vectors: int, count: int, result: int) -> int:
        if descriptor != _STDIN:
            return _BADF
        if not 0 <= count <= _MAX_VECTORS:
            return _INVAL
        start = self._at
        for address, length in self._vectors(vectors, count):
            self._memory.check(address, length)
            chunk = bytes(self._input[self._at : self._at + min(length, _MAX_READ)])
            self._memory.write(address, chunk)
            self._at += len(chunk)
            if len(chunk) < length:
                break
        self._put(result, "<I", self._at - start)
        return _SUCCESS

    def _fd_write(self, descriptor: int, vectors: int, count: int, result: int) -> int:
        if descriptor not in (_STDOUT, _STDERR):
            return _BADF
        if not 0 <= count <= _MAX_VECTORS:
            return _INVAL
        written = 0
        for address, length in self._vectors(vectors, count):
            self._memory.check(address, length)
            if descriptor == _STDOUT:
                self._write_output(address, length)
            else:
                room = _MAX_DIAGNOSTICS - len(self.diagnostics)
                self.diagnostics += self._memory.read(address, min(length, room))
            written += length
        self._put(result, "<I", written)
        return _SUCCESS

    def _write_output(self, address: int, length: int) -> None:
        if len(self.output) + length > self._output_limit:
            raise SandboxError(
                OUTPUT_LIMIT,
                f"The guest wrote more than its limit of {self._output_limit} bytes of output.",
                field="output_bytes",
                hint="Print less, or ask for a higher limit.",
            )
        self.output += self._memory.read(address, length)

    def _proc_exit(self, status: int) -> None:
        raise GuestExit(status & _U32)

    def _random_get(self, address: int, length: int) -> int:
        address, length = address & _U32, length & _U32
        self._memory.check(address, length)
        for start in range(0, length, _RANDOM_CHUNK):
            self._memory.write(address + start, self._random(min(_RANDOM_CHUNK, length - start)))
        return _SUCCESS

    def _vectors(self, address: int, count: int) -> list[tuple[int, int]]:
        data = self._memory.read(address & _U32, 8 * count)
        return list(struct.iter_unpack("<II", data))

    def _put(self, address: int, layout: str, *values: int) -> None:
        self._memory.write(address & _U32, struct.pack(layout, *values))
