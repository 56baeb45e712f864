"""The `ringfence` import module: what a guest may ask of its devices.

Asynchronous calls are appended to the shim's queue, which the guest cannot see, and cross to the device broker in one
batch when the guest synchronises, measures, reads or allocates, or when the queue is full. Every pointer is checked
against the guest's memory, and a call that cannot be meant ends the guest with its code. Sans-IO: the channel does the
crossing. Integers arrive unsigned.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from ringfence.agent import ring
from ringfence.agent.errors import BROKER_PROTOCOL, GUEST_ARGUMENT, SandboxError
from ringfence.agent.sandbox import progress
from ringfence.agent.sandbox.shim import Queue

HostFunction = Callable[..., int | None]
"""One import: takes the parameters that `imports` declares, and gives the result or None where there is none."""

_LAUNCH_HEAD: Final = struct.Struct("<II")
_SYNC_0: Final = ring.encode(ring.Sync(0))


class Memory(Protocol):
    """The guest's memory; each method raises `SandboxError` (`sandbox.bad_argument`) outside it. See `GuestMemory`."""

    def read(self, offset: int, length: int) -> memoryview: ...
    def write(self, offset: int, data: bytes | memoryview) -> None: ...
    def vector(self, offset: int) -> memoryview: ...
    def put_u32(self, offset: int, value: int) -> None: ...
    def put_u64(self, offset: int, value: int) -> None: ...


class Channel(Protocol):
    """The way to the broker; each method raises `SandboxError` when the broker has refused something, or is gone."""

    def send(self, slots: memoryview) -> None:
        """Hand over a batch, of which nothing is kept; waits only while the ring has no room for it."""
        ...

    def settle(self) -> bytes | memoryview:
        """Wait until everything handed over has run; the payload of the last batch, until the next is sent."""
        ...


class HostCalls:
    """The device calls of one guest. `page` is its progress page."""

    def __init__(self, memory: Memory, queue: Queue, channel: Channel, page: memoryview) -> None:
        self._memory = memory
        self._queue = queue
        self._channel = channel
        self._page = page
        self._slots = 0

    def functions(self) -> Mapping[str, HostFunction]:
        """Every function of the module that the shim does not do itself, by its import name."""
        return {
            "amd_gpu_alloc": self._alloc,
            "amd_gpu_copy": self._copy,
            "amd_gpu_kernel_launch": self._launch,
            "amd_gpu_sync": self._sync,
            "quantum_measure": self._measure,
        }

    def flush(self, last: bytes = b"") -> None:
        """Hand over what is queued, and the `last` slots behind it."""
        slots = self._queue.take(last)
        if slots:
            self._channel.send(slots)
            self._slots += len(slots) // ring.SLOT_BYTES
            progress.note(self._page, progress.COMMANDS, self._slots)

    def finish(self) -> None:
        """Hand over what is queued and wait until it has run, so that a fault in it is not lost."""
        self.flush()
        self._channel.settle()

    def _alloc(self, size: int, flags: int) -> int:
        if flags != 0:
            raise _misuse("amd_gpu_alloc", f"flags are {flags}, and none exist yet")
        return int.from_bytes(self._ask(ring.encode(ring.Alloc(size)), 8), "little")

    def _copy(self, destination: int, source: int, size: int, direction: int) -> int:
        match direction:
            case 1:
                self._write(destination, self._memory.read(source, size))
            case 2:
                self._memory.read(destination, size)
                for start in range(0, size, ring.REPLY_BYTES):
                    length = min(ring.REPLY_BYTES, size - start)
                    data = self._ask(ring.encode(ring.Read(source + start & 0xFFFF_FFFF_FFFF_FFFF, length)), length)
                    self._memory.write(destination + start, data)
            case 3:
                self._append(ring.encode(ring.Copy(destination, source, size)))
            case _:
                raise _misuse("amd_gpu_copy", f"direction {direction} is not 1, 2 or 3")
        return 0

    def _write(self, address: int, data: memoryview) -> None:
        """Queue `data` for the device, in as many commands as the queue's room makes of it."""
        start = 0
        while start < len(data):
            if self._queue.free < 2 * ring.SLOT_BYTES:
                self.flush()
            part = data[start : start + self._queue.free - ring.SLOT_BYTES]
            self._queue.append(ring.encode_write(address + start & 0xFFFF_FFFF_FFFF_FFFF, len(part)))
            self._queue.append(part)
            start += len(part)

    def _launch(self, name: int, launch: int, launch_bytes: int) -> int:
        count, rest = divmod(launch_bytes - _LAUNCH_HEAD.size, 8)
        if rest or not 0 <= count <= ring.MAX_ARGUMENTS:
            raise _misuse(
                "amd_gpu_kernel_launch", f"{launch_bytes} bytes hold no launch of up to {ring.MAX_ARGUMENTS} arguments"
            )
        data = self._memory.read(launch, launch_bytes)
        grid, block, *arguments = struct.unpack(f"<II{count}Q", data)
        self._append(ring.encode(ring.Launch(self._name(name), grid, block, tuple(arguments))))
        return 0

    def _name(self, address: int) -> str:
        """The C string at `address`: printable ASCII of 1 to 63 bytes."""
        name = bytearray()
        while byte := self._memory.read(address + len(name), 1)[0]:
            name.append(byte)
            if len(name) > ring.MAX_NAME or not 0x21 <= byte <= 0x7E:
                raise _misuse("amd_gpu_kernel_launch", "the kernel's name is not a short printable string")
        if not name:
            raise _misuse("amd_gpu_kernel_launch", "the kernel's name is empty")
        return name.decode("ascii")

    def _sync(self, stream: int) -> int:
        self._ask(ring.encode(ring.Sync(stream)) if stream else _SYNC_0, 0)
        return 0

    def _measure(self, qubit: int, basis: int) -> int:
        return self._ask(ring.encode(ring.Measure(qubit, basis)), 1)[0]

    def _append(self, slots: bytes) -> None:
        if self._queue.free < len(slots):
            self.flush()
        self._queue.append(slots)

    def _ask(self, slots: bytes, length: int) -> bytes | memoryview:
        """The payload that the broker answers a synchronous command with, which must have `length` bytes."""
        if self._queue.free < len(slots):
            self.flush()
        self.flush(slots)
        payload = self._channel.settle()
        if len(payload) != length:
            raise SandboxError(
                BROKER_PROTOCOL, f"The broker answered {len(payload)} bytes where {length} were expected."
            )
        return payload


def _misuse(function: str, what: str) -> SandboxError:
    return SandboxError(
        GUEST_ARGUMENT, f"The guest called {function} in a way that cannot be meant: {what}.", hint="See ringfence.h."
    )
