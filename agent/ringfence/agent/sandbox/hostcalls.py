"""The `ringfence` import module: what a guest may ask of its devices.

Asynchronous calls are appended to a buffer that the guest cannot see, and cross to the device broker in one batch when
the guest synchronises, measures, reads or allocates, or when the buffer is full. Every pointer is checked against the
guest's memory, and a call that cannot be meant ends the guest with its code. Sans-IO: the channel does the crossing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ringfence.agent import ring
from ringfence.agent.errors import BROKER_PROTOCOL, GUEST_ARGUMENT, SandboxError

MODULE = "ringfence"

_CHUNK = 4 * 1024 * 1024
_FULL = 8 * 1024 * 1024
_LAUNCH_HEAD = struct.Struct("<II")
_U32, _U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


class Memory(Protocol):
    """The guest's memory; each method raises `SandboxError` (`sandbox.bad_argument`) outside it."""

    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> None: ...
    def check(self, offset: int, length: int) -> None: ...


class Channel(Protocol):
    """The way to the broker."""

    def exchange(self, batch: bytes) -> bytes:
        """The payload that the broker answers `batch` with; raises `SandboxError` when it refuses."""
        ...


@dataclass(frozen=True, slots=True)
class HostFunction:
    """One import: its WebAssembly parameter and result types, and what it does. Integers arrive signed."""

    parameters: tuple[str, ...]
    results: tuple[str, ...]
    call: Callable[..., Any]


class HostCalls:
    """The calls of one guest."""

    def __init__(self, memory: Memory, channel: Channel) -> None:
        self._memory = memory
        self._channel = channel
        self._buffer = bytearray()

    def functions(self) -> Mapping[str, HostFunction]:
        """Every function of the module, by its import name."""
        i32, i64, f64 = "i32", "i64", "f64"
        return {
            "amd_gpu_alloc": HostFunction((i64, i32), (i64,), self._alloc),
            "amd_gpu_copy": HostFunction((i64, i64, i64, i32), (i32,), self._copy),
            "amd_gpu_kernel_launch": HostFunction((i32, i32, i32), (i32,), self._launch),
            "amd_gpu_sync": HostFunction((i32,), (i32,), self._sync),
            "quantum_gate": HostFunction((i32, i32, f64), (i32,), self._gate),
            "quantum_measure": HostFunction((i32, i32), (i32,), self._measure),
            "security_checkpoint": HostFunction((i32,), (), self._checkpoint),
        }

    def finish(self) -> None:
        """Cross what the guest left in the buffer, so that a fault in it is not lost."""
        self._flush()

    def _alloc(self, size: int, flags: int) -> int:
        if flags != 0:
            raise _misuse("amd_gpu_alloc", f"flags are {flags & _U32}, and none exist yet")
        address = self._ask(ring.Alloc(size & _U64), 8)
        return struct.unpack("<q", address)[0]  # type: ignore[no-any-return]

    def _copy(self, destination: int, source: int, size: int, direction: int) -> int:
        destination, source, size = destination & _U64, source & _U64, size & _U64
        match direction:
            case 1:
                self._memory.check(source, size)
                for start in range(0, size, _CHUNK):
                    data = self._memory.read(source + start, min(_CHUNK, size - start))
                    self._append(ring.Write(destination + start & _U64, data))
            case 2:
                self._memory.check(destination, size)
                for start in range(0, size, _CHUNK):
                    length = min(_CHUNK, size - start)
                    self._memory.write(destination + start, self._ask(ring.Read(source + start & _U64, length), length))
            case 3:
                self._append(ring.Copy(destination, source, size))
            case _:
                raise _misuse("amd_gpu_copy", f"direction {direction & _U32} is not 1, 2 or 3")
        return 0

    def _launch(self, name: int, launch: int, launch_bytes: int) -> int:
        launch_bytes &= _U32
        count, rest = divmod(launch_bytes - _LAUNCH_HEAD.size, 8)
        if rest or not 0 <= count <= ring.MAX_ARGUMENTS:
            raise _misuse(
                "amd_gpu_kernel_launch", f"{launch_bytes} bytes hold no launch of up to {ring.MAX_ARGUMENTS} arguments"
            )
        kernel = self._name(name & _U32)
        data = self._memory.read(launch & _U32, launch_bytes)
        grid, block = _LAUNCH_HEAD.unpack_from(data)
        self._append(ring.Launch(kernel, grid, block, struct.unpack_from(f"<{count}Q", data, _LAUNCH_HEAD.size)))
        return 0

    def _name(self, address: int) -> str:
        """The C string at `address`: printable ASCII of 1 to 63 bytes."""
        name = bytearray()
        while (byte := self._memory.read(address + len(name), 1)) != b"\0":
            name += byte
            if len(name) > ring.MAX_NAME or not 0x21 <= byte[0] <= 0x7E:
                raise _misuse("amd_gpu_kernel_launch", "the kernel's name is not a short printable string")
        if not name:
            raise _misuse("amd_gpu_kernel_launch", "the kernel's name is empty")
        return name.decode("ascii")

    def _sync(self, stream: int) -> int:
        self._ask(ring.Sync(stream & _U32), 0)
        return 0

    def _gate(self, gate: int, qubits: int, angle: float) -> int:
        self._append(ring.Gate(gate & _U32, qubits & _U32, angle))
        return 0

    def _measure(self, qubit: int, basis: int) -> int:
        return self._ask(ring.Measure(qubit & _U32, basis & _U32), 1)[0]

    def _checkpoint(self, number: int) -> None:
        self._append(ring.Checkpoint(number & _U32))

    def _append(self, command: ring.Command) -> None:
        self._buffer += ring.encode(command)
        if len(self._buffer) >= _FULL:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            self._cross(0)

    def _ask(self, command: ring.Command, length: int) -> bytes:
        self._buffer += ring.encode(command)
        return self._cross(length)

    def _cross(self, length: int) -> bytes:
        batch = bytes(self._buffer)
        self._buffer.clear()
        payload = self._channel.exchange(batch)
        if len(payload) != length:
            raise SandboxError(
                BROKER_PROTOCOL, f"The broker answered {len(payload)} bytes where {length} were expected."
            )
        return payload


def _misuse(function: str, what: str) -> SandboxError:
    return SandboxError(
        GUEST_ARGUMENT, f"The guest called {function} in a way that cannot be meant: {what}.", hint="See ringfence.h."
    )
