"""WASI preview 1 as a guest gets it: every function, but only standard input, output and error to use them on.

Our own, because wasmtime's starts three threads for standard input and output, which a locked-down worker may not.
Descriptors other than 0, 1 and 2 are never open. Sans-IO but for the clocks, the random source and sleeping, which are
arguments. What is about files and sockets stands in `wasi_absent`.
Source: WebAssembly/WASI, phases/snapshot/docs.md (wasi_snapshot_preview1).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ringfence.agent.errors import OUTPUT_LIMIT, SandboxError
from ringfence.agent.sandbox import wasi_absent, wasi_polling
from ringfence.agent.sandbox.hostcalls import HostFunction, Memory
from ringfence.agent.sandbox.wasi_abi import (
    BADF,
    INVAL,
    NOTCAPABLE,
    NOTSUP,
    RIGHT_FILESTAT,
    RIGHT_POLL,
    RIGHT_READ,
    RIGHT_SET_FLAGS,
    RIGHT_WRITE,
    SUCCESS,
)

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_RIGHTS_OF_ALL: Final = RIGHT_SET_FLAGS | RIGHT_FILESTAT | RIGHT_POLL
_MAX_VECTORS: Final = 1024
_MAX_SUBSCRIPTIONS: Final = 1024
_MAX_DIAGNOSTICS: Final = 1024
_RANDOM_CHUNK: Final = 64 * 1024
_VECTOR_BYTES: Final = 8
_RESOLUTION_NS: Final = 1
# File type 0 is "unknown": not a terminal, so the guest's library buffers whole blocks.
_STATE: Final = struct.Struct("<BxHxxxxQQ")
# dev, ino, filetype, nlink, size and three times.
_FILE_STATE: Final = struct.Struct("<QQB7xQQQQQ")
# fdflags: every write is appended and no call blocks, so these two change nothing; the rest promise a disk.
_APPEND_AND_NONBLOCK: Final = 1 << 0 | 1 << 2
_SYNCHRONISED: Final = 1 << 1 | 1 << 3 | 1 << 4
# signal: what happens by default; the others, up to the last, end the process.
_IGNORED_SIGNALS: Final = frozenset({0, 13, 16, 17, 22, 27})
_STOPPING_SIGNALS: Final = frozenset({18, 19, 20, 21})
_LAST_SIGNAL: Final = 30
_SIGNALLED: Final = 128


class GuestExit(Exception):  # noqa: N818 - an exit is no error until its status says so
    """The guest called `proc_exit`, or raised a signal that ends a process: `status` is 128 more than its number."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


# A program without arguments still has its name.
_PROGRAM: Final = b"guest\0"


@dataclass(slots=True)
class _Stream:
    """An open descriptor: which of the three streams it is, and what the guest may do with it and has set of it."""

    kind: int
    rights: int
    flags: int = 0


class Wasi:
    """One guest's standard streams. `clocks` give nanoseconds: clock 0 is the real one, clock 1 the monotonic one.

    `sleep` waits nanoseconds.
    """

    def __init__(
        self,
        memory: Memory,
        standard_input: memoryview,
        output_limit: int,
        *,
        clocks: tuple[Callable[[], int], Callable[[], int]],
        random: Callable[[int], bytes],
        sleep: Callable[[int], None] = wasi_polling.sleep,
    ) -> None:
        self.output = bytearray()
        self.diagnostics = bytearray()
        self.clocks = clocks
        self._memory = memory
        self._input = standard_input
        self._at = 0
        self._output_limit = output_limit
        self._random = random
        self._sleep = sleep
        self._streams = {
            _STDIN: _Stream(_STDIN, _RIGHTS_OF_ALL | RIGHT_READ),
            _STDOUT: _Stream(_STDOUT, _RIGHTS_OF_ALL | RIGHT_WRITE),
            _STDERR: _Stream(_STDERR, _RIGHTS_OF_ALL | RIGHT_WRITE),
        }

    def functions(self) -> Mapping[str, HostFunction]:
        """Every function of the module, by its import name."""
        return {
            **wasi_absent.functions(self._streams),
            "args_get": self._args_get,
            "args_sizes_get": self._args_sizes_get,
            "clock_res_get": self._clock_res_get,
            "clock_time_get": self._clock_time_get,
            "environ_get": _nothing,
            "environ_sizes_get": self._no_sizes,
            "fd_close": self._fd_close,
            "fd_fdstat_get": self._fd_fdstat_get,
            "fd_fdstat_set_flags": self._fd_fdstat_set_flags,
            "fd_fdstat_set_rights": self._fd_fdstat_set_rights,
            "fd_filestat_get": self._fd_filestat_get,
            "fd_read": self._fd_read,
            "fd_renumber": self._fd_renumber,
            "fd_write": self._fd_write,
            "poll_oneoff": self._poll_oneoff,
            "proc_exit": _proc_exit,
            "proc_raise": _proc_raise,
            "random_get": self._random_get,
            "sched_yield": _nothing,
        }

    def _no_sizes(self, count: int, size: int) -> int:
        self._memory.put_u32(count, 0)
        self._memory.put_u32(size, 0)
        return SUCCESS

    def _args_sizes_get(self, count: int, size: int) -> int:
        self._memory.put_u32(count, 1)
        self._memory.put_u32(size, len(_PROGRAM))
        return SUCCESS

    def _args_get(self, arguments: int, text: int) -> int:
        self._memory.put_u32(arguments, text)
        self._memory.write(text, _PROGRAM)
        return SUCCESS

    def _clock_res_get(self, clock: int, result: int) -> int:
        if clock >= len(self.clocks):
            return INVAL
        self._memory.put_u64(result, _RESOLUTION_NS)
        return SUCCESS

    def _clock_time_get(self, clock: int, _precision: int, result: int) -> int:
        if clock >= len(self.clocks):
            return INVAL
        self._memory.put_u64(result, self.clocks[clock]())
        return SUCCESS

    def _fd_close(self, descriptor: int) -> int:
        return BADF if self._streams.pop(descriptor, None) is None else SUCCESS

    def _fd_renumber(self, descriptor: int, to: int) -> int:
        streams = self._streams
        if descriptor not in streams or to not in streams:
            return BADF
        streams[to] = streams.pop(descriptor)
        return SUCCESS

    def _fd_fdstat_get(self, descriptor: int, result: int) -> int:
        stream = self._streams.get(descriptor)
        if stream is None:
            return BADF
        self._memory.write(result, _STATE.pack(0, stream.flags, stream.rights, 0))
        return SUCCESS

    def _fd_fdstat_set_flags(self, descriptor: int, flags: int) -> int:
        if refused := self._refusal(descriptor, RIGHT_SET_FLAGS):
            return refused
        if flags & ~(_APPEND_AND_NONBLOCK | _SYNCHRONISED):
            return INVAL
        if flags & _SYNCHRONISED:
            return NOTSUP
        self._streams[descriptor].flags = flags
        return SUCCESS

    def _fd_fdstat_set_rights(self, descriptor: int, rights: int, inherited: int) -> int:
        stream = self._streams.get(descriptor)
        if stream is None:
            return BADF
        if rights & ~stream.rights or inherited:
            return NOTCAPABLE
        stream.rights = rights
        return SUCCESS

    def _fd_filestat_get(self, descriptor: int, result: int) -> int:
        if refused := self._refusal(descriptor, RIGHT_FILESTAT):
            return refused
        self._memory.write(result, _FILE_STATE.pack(0, self._streams[descriptor].kind, 0, 1, 0, 0, 0, 0))
        return SUCCESS

    def _refusal(self, descriptor: int, right: int) -> int:
        """The error of a descriptor that is not open, or on which the guest has given that right up; else 0."""
        stream = self._streams.get(descriptor)
        if stream is None:
            return BADF
        return SUCCESS if stream.rights & right else NOTCAPABLE

    def _fd_read(self, descriptor: int, vectors: int, count: int, result: int) -> int:
        stream = self._streams.get(descriptor)
        if stream is None or not stream.rights & RIGHT_READ:
            return BADF
        if count > _MAX_VECTORS:
            return INVAL
        start = self._at
        for at in range(vectors, vectors + _VECTOR_BYTES * count, _VECTOR_BYTES):
            room = self._memory.vector(at)
            chunk = self._input[self._at : self._at + len(room)]
            room[: len(chunk)] = chunk
            self._at += len(chunk)
            if len(chunk) < len(room):
                break
        self._memory.put_u32(result, self._at - start)
        return SUCCESS

    def _fd_write(self, descriptor: int, vectors: int, count: int, result: int) -> int:
        memory, stream = self._memory, self._streams.get(descriptor)
        if stream is None or not stream.rights & RIGHT_WRITE:
            return BADF
        if count == 1 and stream.kind == _STDOUT:  # nearly every call there is, so it is looked for first
            written = self._print(memory.vector(vectors))
        elif count > _MAX_VECTORS:
            return INVAL
        else:
            write = self._print if stream.kind == _STDOUT else self._note
            places = range(vectors, vectors + _VECTOR_BYTES * count, _VECTOR_BYTES)
            # Every vector may name the same bytes, so the sum may be longer than what a u32 holds.
            written = sum(write(memory.vector(at)) for at in places) & 0xFFFF_FFFF
        memory.put_u32(result, written)
        return SUCCESS

    def _print(self, data: memoryview) -> int:
        output, length = self.output, len(data)
        if len(output) + length > self._output_limit:
            raise SandboxError(
                OUTPUT_LIMIT,
                f"The guest wrote more than its limit of {self._output_limit} bytes of output.",
                field="output_bytes",
                hint="Print less, or ask for a higher limit.",
            )
        output += data
        return length

    def _note(self, data: memoryview) -> int:
        self.diagnostics += data[: _MAX_DIAGNOSTICS - len(self.diagnostics)]
        return len(data)

    def _poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        if not 1 <= count <= _MAX_SUBSCRIPTIONS:
            return INVAL
        memory = self._memory
        given = bytes(memory.read(subscriptions, wasi_polling.SUBSCRIPTION_BYTES * count))
        # A guest whose answer has no place hears of it now, not when it has slept.
        memory.read(events, wasi_polling.EVENT_BYTES * count)
        memory.read(result, 4)
        try:
            happened = wasi_polling.poll(given, clocks=self.clocks, ready=self._ready, sleep=self._sleep)
        except ValueError:
            return INVAL
        memory.write(events, happened)
        memory.put_u32(result, len(happened) // wasi_polling.EVENT_BYTES)
        return SUCCESS

    def _ready(self, kind: int, descriptor: int) -> tuple[int, int]:
        """The error of waiting for a stream, and how many bytes it takes or has: none at the end of the input."""
        if refused := self._refusal(descriptor, RIGHT_POLL):
            return refused, 0
        stream = self._streams[descriptor]
        if not stream.rights & (RIGHT_READ if kind == wasi_polling.READ else RIGHT_WRITE):
            return BADF, 0
        room = {
            _STDIN: len(self._input) - self._at,
            _STDOUT: self._output_limit - len(self.output),
            _STDERR: _MAX_DIAGNOSTICS,
        }
        return SUCCESS, room[stream.kind]

    def _random_get(self, address: int, length: int) -> int:
        self._memory.read(address, length)
        for start in range(0, length, _RANDOM_CHUNK):
            self._memory.write(address + start, self._random(min(_RANDOM_CHUNK, length - start)))
        return SUCCESS


def _nothing(*_arguments: int) -> int:
    return SUCCESS


def _proc_exit(status: int) -> None:
    raise GuestExit(status)


def _proc_raise(signal: int) -> int:
    if signal > _LAST_SIGNAL:
        return INVAL
    if signal in _STOPPING_SIGNALS:
        return NOTSUP
    if signal in _IGNORED_SIGNALS:
        return SUCCESS
    raise GuestExit(_SIGNALLED + signal)
