"""The command ring's wire format: what a guest's worker tells its device broker, and what it hears back.

Sans-IO. A *batch* is what a worker sends in one crossing: any number of asynchronous commands, of which only the last
may be synchronous. The broker answers each batch with one *reply*. Both travel as a frame, a little-endian u32 length
and that many bytes, over a socket pair that names the job, so that no byte of a batch says whose it is.

A worker runs hostile code: `decode_batch` trusts no length, count or opcode.

Command encodings (little-endian, packed), after a one-byte opcode:

    1  ALLOC       u64 bytes                                  synchronous, reply payload: u64 address, 0 when full
    2  WRITE       u64 address, u32 length, payload           host to device
    3  READ        u64 address, u32 length                    synchronous, reply payload: the bytes
    4  COPY        u64 destination, u64 source, u64 bytes     device to device
    5  LAUNCH      u8 name length, name, u32 grid, u32 block, u8 count, u64 * count
    6  SYNC        u32 stream                                 synchronous, empty reply
    7  GATE        u32 gate, u32 qubits, f64 angle            qubits: first in the low 16 bits, second in the high
    8  MEASURE     u32 qubit, u32 basis                       synchronous, reply payload: u8 outcome
    9  CHECKPOINT  u32 id
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ringfence.agent.errors import BROKER_PROTOCOL, SandboxError

MAX_FRAME = 16 * 1024 * 1024 + 64
MAX_NAME = 63
MAX_ARGUMENTS = 16


@dataclass(frozen=True, slots=True)
class Alloc:
    """Reserve `size` bytes of the job's device pool."""

    size: int


@dataclass(frozen=True, slots=True)
class Write:
    """Copy `data` to the device at `address`."""

    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for `length` bytes of the device from `address`."""

    address: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy `size` bytes inside the device."""

    destination: int
    source: int
    size: int


@dataclass(frozen=True, slots=True)
class Launch:
    """Launch the catalogue kernel `kernel` with `grid` blocks of `block` threads; each argument is 8 raw bytes."""

    kernel: str
    grid: int
    block: int
    arguments: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """Wait until everything queued before has finished."""

    stream: int


@dataclass(frozen=True, slots=True)
class Gate:
    """Apply gate number `gate` to one or two qubits; `angle` is in radians."""

    gate: int
    qubits: int
    angle: float


@dataclass(frozen=True, slots=True)
class Measure:
    """Measure one qubit in basis 0 (Z) or 1 (X)."""

    qubit: int
    basis: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The guest reports progress."""

    number: int


Command = Alloc | Write | Read | Copy | Launch | Sync | Gate | Measure | Checkpoint
SYNCHRONOUS = (Alloc, Read, Sync, Measure)

_ALLOC, _WRITE, _READ, _COPY, _LAUNCH, _SYNC, _GATE, _MEASURE, _CHECKPOINT = range(1, 10)
_U8 = struct.Struct("<B")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ADDRESS = struct.Struct("<QI")
_COPY_BODY = struct.Struct("<QQQ")
_GRID = struct.Struct("<IIB")
_GATE_BODY = struct.Struct("<IId")
_MEASURE_BODY = struct.Struct("<II")


def encode(command: Command) -> bytes:
    """The bytes of one command."""
    match command:
        case Alloc(size):
            return _U8.pack(_ALLOC) + _U64.pack(size)
        case Write(address, data):
            return _U8.pack(_WRITE) + _ADDRESS.pack(address, len(data)) + data
        case Read(address, length):
            return _U8.pack(_READ) + _ADDRESS.pack(address, length)
        case Copy(destination, source, size):
            return _U8.pack(_COPY) + _COPY_BODY.pack(destination, source, size)
        case Launch(kernel, grid, block, arguments):
            name = kernel.encode("ascii")
            head = _U8.pack(_LAUNCH) + _U8.pack(len(name)) + name + _GRID.pack(grid, block, len(arguments))
            return head + b"".join(map(_U64.pack, arguments))
        case Sync(stream):
            return _U8.pack(_SYNC) + _U32.pack(stream)
        case Gate(gate, qubits, angle):
            return _U8.pack(_GATE) + _GATE_BODY.pack(gate, qubits, angle)
        case Measure(qubit, basis):
            return _U8.pack(_MEASURE) + _MEASURE_BODY.pack(qubit, basis)
        case Checkpoint(number):
            return _U8.pack(_CHECKPOINT) + _U32.pack(number)


class _Reader:
    """Takes fields off a batch; running short is a protocol error, never a partial value."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left():
            raise _broken(f"a field of {count} bytes runs past the end of the batch at offset {self._at}")
        self._at += count
        return self._data[self._at - count : self._at]

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))


def decode_batch(batch: bytes) -> list[Command]:
    """The commands of a batch, in order.

    Raises `SandboxError` (`sandbox.broker_protocol`) on an unknown opcode, a field past the end, a name that is not
    printable ASCII, or a synchronous command that is not the last.
    """
    if len(batch) > MAX_FRAME:
        raise _broken(f"a batch of {len(batch)} bytes is longer than {MAX_FRAME}")
    reader = _Reader(batch)
    commands: list[Command] = []
    while reader.left():
        if commands and isinstance(commands[-1], SYNCHRONOUS):
            raise _broken("a synchronous command is followed by another command in its batch")
        commands.append(_decode_one(reader))
    return commands


def _decode_one(reader: _Reader) -> Command:
    (opcode,) = reader.unpack(_U8)
    match opcode:
        case 1:
            return Alloc(*reader.unpack(_U64))
        case 2:
            address, length = reader.unpack(_ADDRESS)
            return Write(address, reader.take(length))
        case 3:
            return Read(*reader.unpack(_ADDRESS))
        case 4:
            return Copy(*reader.unpack(_COPY_BODY))
        case 5:
            return _decode_launch(reader)
        case 6:
            return Sync(*reader.unpack(_U32))
        case 7:
            gate, qubits, angle = reader.unpack(_GATE_BODY)
            return Gate(gate, qubits, float(angle))
        case 8:
            return Measure(*reader.unpack(_MEASURE_BODY))
        case 9:
            return Checkpoint(*reader.unpack(_U32))
        case _:
            raise _broken(f"opcode {opcode} does not exist")


def _decode_launch(reader: _Reader) -> Launch:
    (length,) = reader.unpack(_U8)
    if not 0 < length <= MAX_NAME:
        raise _broken(f"a kernel name of {length} bytes is not between 1 and {MAX_NAME}")
    name = reader.take(length)
    if not all(0x21 <= byte <= 0x7E for byte in name):
        raise _broken("a kernel name holds a byte that is not printable ASCII")
    grid, block, count = reader.unpack(_GRID)
    if count > MAX_ARGUMENTS:
        raise _broken(f"a launch with {count} arguments has more than {MAX_ARGUMENTS}")
    arguments = tuple(reader.unpack(_U64)[0] for _ in range(count))
    return Launch(name.decode("ascii"), grid, block, arguments)


@dataclass(frozen=True, slots=True)
class Reply:
    """The broker's answer to a batch: `payload` of its synchronous command, or the code and message of a refusal."""

    payload: bytes = b""
    code: str = ""
    message: str = ""


def encode_reply(reply: Reply) -> bytes:
    """The bytes of a reply: u8 0 and the payload, or u8 1, u8 length, code, message."""
    if not reply.code:
        return b"\x00" + reply.payload
    code = reply.code.encode("ascii")
    return b"\x01" + _U8.pack(len(code)) + code + reply.message.encode()


def decode_reply(data: bytes) -> Reply:
    """The reply in `data`. Raises `SandboxError` when it is none."""
    reader = _Reader(data)
    (status,) = reader.unpack(_U8)
    if status == 0:
        return Reply(payload=reader.take(reader.left()))
    if status != 1:
        raise _broken(f"reply status {status} does not exist")
    (length,) = reader.unpack(_U8)
    code = reader.take(length)
    message = reader.take(reader.left())
    try:
        return Reply(code=code.decode("ascii"), message=message.decode())
    except UnicodeDecodeError as error:
        raise _broken("a refusal is not text") from error


def frame(data: bytes) -> bytes:
    """`data` behind its length."""
    return _U32.pack(len(data)) + data


def frame_length(header: bytes) -> int:
    """The length that a 4-byte frame header announces; raises when it is more than a frame may hold."""
    (length,) = _U32.unpack(header)
    if length > MAX_FRAME:
        raise _broken(f"a frame of {length} bytes is longer than {MAX_FRAME}")
    return int(length)


def _broken(what: str) -> SandboxError:
    return SandboxError(BROKER_PROTOCOL, f"The worker and its broker disagree: {what}.")
