"""The command ring's wire format: what a guest's worker tells its device broker, and what it hears back.

Sans-IO. Commands travel in a *request* file that both processes map: a ring of `SLOTS` slots of 32 bytes. Slot number
n, counted from the job's start, lies at n modulo `SLOTS`; a position never goes backwards. For each batch the worker
sends a *crossing*, the u64 number of slots appended so far, over the socket pair that names the job, so that no byte
of a batch says whose it is. The broker answers each crossing, in order, with an *answer*: u64 slots consumed, u32
status, u32 length of the payload that lies in the *reply* file. Until it has its answer, a batch's slots stay taken:
that is the worker's credit. A batch holds any number of asynchronous commands, of which only the last may be
synchronous.

A worker runs hostile code: `Intake` trusts no position and copies each batch out of the shared map exactly once, and
`decode_batch` trusts no opcode, length or count of that copy.

A command is one slot, little-endian: u32 opcode, u32 a, u64 b, u64 c, u64 d; what an opcode does not name is not
looked at. A payload follows in as many whole slots as it needs.

    1  ALLOC    b bytes                                        synchronous; payload: u64 address, 0 when full
    2  WRITE    a length, b address; payload                   host to device
    3  READ     a length, b address                            synchronous; payload: the bytes
    4  COPY     b destination, c source, d bytes               device to device
    5  LAUNCH   a u8 name length, u8 count; b u32 grid, u32 block; payload: u64 * count, name
    6  SYNC     a stream                                       synchronous; no payload
    7  GATE     a gate, b qubits, d f64 angle                  qubits: first in the low 16 bits, second in the high
    8  MEASURE  a qubit, b basis                               synchronous; payload: u8 outcome
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ringfence.agent.errors import BROKER_PROTOCOL, SandboxError

SLOT_BYTES: Final = 32
SLOTS: Final = 32768
REQUEST_BYTES: Final = SLOTS * SLOT_BYTES
REPLY_BYTES: Final = 1024 * 1024
CROSSING_BYTES: Final = 8
ANSWER_BYTES: Final = 16
MAX_NAME: Final = 63
MAX_ARGUMENTS: Final = 16
GATE_OPCODE: Final = 7


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


Command = Alloc | Write | Read | Copy | Launch | Sync | Gate | Measure

_OPCODE = struct.Struct("<I")
_ALLOC = struct.Struct("<IIQ16x")
_TRANSFER = struct.Struct("<IIQ16x")
_COPY = struct.Struct("<I4xQQQ")
_LAUNCH = struct.Struct("<IBB2xII16x")
_SYNC = struct.Struct("<II24x")
_GATE = struct.Struct("<IIQ8xd")
_MEASURE = struct.Struct("<IIQ16x")
_CROSSING = struct.Struct("<Q")
_ANSWER = struct.Struct("<QII")
_ACCEPTED, _REFUSED = 0, 1


def encode(command: Command) -> bytes:
    """The slots of one command."""
    match command:
        case Alloc(size):
            return _ALLOC.pack(1, 0, size)
        case Write(address, data):
            return encode_write(address, len(data)) + data + bytes(-len(data) % SLOT_BYTES)
        case Read(address, length):
            return _TRANSFER.pack(3, length, address)
        case Copy(destination, source, size):
            return _COPY.pack(4, destination, source, size)
        case Launch(kernel, grid, block, arguments):
            name = kernel.encode("ascii")
            payload = struct.pack(f"<{len(arguments)}Q", *arguments) + name
            head = _LAUNCH.pack(5, len(name), len(arguments), grid, block)
            return head + payload + bytes(-len(payload) % SLOT_BYTES)
        case Sync(stream):
            return _SYNC.pack(6, stream)
        case Gate(gate, qubits, angle):
            return _GATE.pack(GATE_OPCODE, gate, qubits, angle)
        case Measure(qubit, basis):
            return _MEASURE.pack(8, qubit, basis)


def encode_write(address: int, length: int) -> bytes:
    """The slot of a WRITE, for a caller that lays its payload behind it without a copy in between."""
    return _TRANSFER.pack(2, length, address)


def decode_batch(batch: bytes) -> list[Command]:
    """The commands of a batch, in order.

    Raises `SandboxError` (`sandbox.broker_protocol`) on an unknown opcode, a payload past the end, a name that is not
    printable ASCII, or a synchronous command that is not the last.
    """
    end = len(batch)
    if end % SLOT_BYTES or end > REQUEST_BYTES:
        raise _broken(f"a batch of {end} bytes is not one of up to {SLOTS} slots")
    commands: list[Command] = []
    at = 0
    while at < end:
        (opcode,) = _OPCODE.unpack_from(batch, at)
        if opcode >= len(_DECODERS):
            raise _broken(f"opcode {opcode} does not exist")
        command, payload = _DECODERS[opcode](batch, at)
        commands.append(command)
        at += SLOT_BYTES + -(-payload // SLOT_BYTES) * SLOT_BYTES
        if at < end and opcode in _SYNCHRONOUS:
            raise _broken("a synchronous command is followed by another command in its batch")
    return commands


def _decode_zero(_batch: bytes, _at: int) -> tuple[Command, int]:
    raise _broken("opcode 0 does not exist")


def _decode_alloc(batch: bytes, at: int) -> tuple[Command, int]:
    return Alloc(_ALLOC.unpack_from(batch, at)[2]), 0


def _decode_write(batch: bytes, at: int) -> tuple[Command, int]:
    _, length, address = _TRANSFER.unpack_from(batch, at)
    return Write(address, _payload(batch, at, length)), length


def _decode_read(batch: bytes, at: int) -> tuple[Command, int]:
    _, length, address = _TRANSFER.unpack_from(batch, at)
    return Read(address, length), 0


def _decode_copy(batch: bytes, at: int) -> tuple[Command, int]:
    _, destination, source, size = _COPY.unpack_from(batch, at)
    return Copy(destination, source, size), 0


def _decode_launch(batch: bytes, at: int) -> tuple[Command, int]:
    _, length, count, grid, block = _LAUNCH.unpack_from(batch, at)
    if not 0 < length <= MAX_NAME:
        raise _broken(f"a kernel name of {length} bytes is not between 1 and {MAX_NAME}")
    if count > MAX_ARGUMENTS:
        raise _broken(f"a launch with {count} arguments has more than {MAX_ARGUMENTS}")
    payload = _payload(batch, at, 8 * count + length)
    name = payload[8 * count :]
    if not all(0x21 <= byte <= 0x7E for byte in name):
        raise _broken("a kernel name holds a byte that is not printable ASCII")
    arguments = struct.unpack_from(f"<{count}Q", payload)
    return Launch(name.decode("ascii"), grid, block, arguments), len(payload)


def _decode_sync(batch: bytes, at: int) -> tuple[Command, int]:
    return Sync(_SYNC.unpack_from(batch, at)[1]), 0


def _decode_gate(batch: bytes, at: int) -> tuple[Command, int]:
    _, gate, qubits, angle = _GATE.unpack_from(batch, at)
    return Gate(gate, qubits, angle), 0


def _decode_measure(batch: bytes, at: int) -> tuple[Command, int]:
    _, qubit, basis = _MEASURE.unpack_from(batch, at)
    return Measure(qubit, basis), 0


# By opcode: gives the command whose slot begins there, and the length of the payload behind it.
_DECODERS: Final[tuple[Callable[[bytes, int], tuple[Command, int]], ...]] = (
    _decode_zero,
    _decode_alloc,
    _decode_write,
    _decode_read,
    _decode_copy,
    _decode_launch,
    _decode_sync,
    _decode_gate,
    _decode_measure,
)
_SYNCHRONOUS: Final = frozenset((1, 3, 6, 8))


def _payload(batch: bytes, at: int, length: int) -> bytes:
    """The `length` bytes behind the slot that begins at `at`."""
    start = at + SLOT_BYTES
    if length > len(batch) - start:
        raise _broken(f"a payload of {length} bytes runs past the end of its batch")
    return batch[start : start + length]


class Intake:
    """The broker's side of a request file that its worker goes on writing: takes each batch out of it once."""

    def __init__(self, request: memoryview) -> None:
        self._request = request
        self.consumed = 0

    def take(self, crossing: bytes) -> bytes:
        """The batch that `crossing` announces, as the broker's own bytes.

        Raises `SandboxError` (`sandbox.broker_protocol`) when it is no crossing, or its position lies behind the last
        one or further ahead than the ring is long.
        """
        if len(crossing) != CROSSING_BYTES:
            raise _broken(f"a crossing has {len(crossing)} bytes instead of {CROSSING_BYTES}")
        (appended,) = _CROSSING.unpack(crossing)
        if not 0 <= appended - self.consumed <= SLOTS:
            raise _broken(f"slot {appended} does not follow slot {self.consumed} in a ring of {SLOTS}")
        start = self.consumed % SLOTS * SLOT_BYTES
        end = start + (appended - self.consumed) * SLOT_BYTES
        batch = bytes(self._request[start:end])
        if end > REQUEST_BYTES:
            batch += self._request[: end - REQUEST_BYTES]
        self.consumed = appended
        return batch


class Outlet:
    """The worker's side of a request file: puts batches into free slots and knows which of them were answered."""

    def __init__(self, request: memoryview) -> None:
        self._request = request
        self._appended = 0
        self._consumed = 0
        self._unanswered: deque[int] = deque()

    @property
    def free(self) -> int:
        """How many slots may be put before an answer is needed."""
        return SLOTS - (self._appended - self._consumed)

    @property
    def unanswered(self) -> int:
        """How many crossings have no answer yet."""
        return len(self._unanswered)

    def put(self, slots: bytes | memoryview) -> bytes:
        """Append whole slots, at most `free`; returns the crossing to send."""
        start = self._appended % SLOTS * SLOT_BYTES
        end = start + len(slots)
        if end <= REQUEST_BYTES:
            self._request[start:end] = slots
        else:
            fits = REQUEST_BYTES - start
            self._request[start:] = slots[:fits]
            self._request[: end - REQUEST_BYTES] = slots[fits:]
        self._appended += len(slots) // SLOT_BYTES
        self._unanswered.append(self._appended)
        return _CROSSING.pack(self._appended)

    def settle(self, answer: bytes, reply: memoryview) -> memoryview | Refusal:
        """What the broker answered to the oldest crossing that had no answer; a payload is a view of the reply file.

        Raises `SandboxError` (`sandbox.broker_protocol`) when this cannot be its answer.
        """
        if len(answer) != ANSWER_BYTES:
            raise _broken(f"an answer has {len(answer)} bytes instead of {ANSWER_BYTES}")
        consumed, status, length = _ANSWER.unpack(answer)
        if not self._unanswered or consumed != self._unanswered.popleft():
            raise _broken(f"slot {consumed} was answered out of turn")
        self._consumed = consumed
        if status > _REFUSED or length > len(reply):
            raise _broken(f"an answer of status {status} with {length} bytes does not exist")
        payload = reply[:length]
        return payload if status == _ACCEPTED else _decode_refusal(bytes(payload))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the broker ended the job: the code's name, and a message."""

    code: str
    message: str


def encode_answer(consumed: int, result: bytes | Refusal) -> tuple[bytes, bytes]:
    """The answer to the crossing up to slot `consumed`, and the payload to lay into the reply file before it is sent.

    `result` is the payload of the batch's synchronous command, or nothing, or the refusal.
    """
    if isinstance(result, Refusal):
        code = result.code.encode("ascii")
        payload = bytes([len(code)]) + code + result.message.encode()
        return _ANSWER.pack(consumed, _REFUSED, len(payload)), payload
    return _ANSWER.pack(consumed, _ACCEPTED, len(result)), result


def _decode_refusal(payload: bytes) -> Refusal:
    """A refusal: u8 length, code, message."""
    length = payload[0] if payload else 0
    if not 0 < length < len(payload):
        raise _broken("a refusal has no code")
    try:
        return Refusal(payload[1 : 1 + length].decode("ascii"), payload[1 + length :].decode())
    except UnicodeDecodeError as error:
        raise _broken("a refusal is not text") from error


def _broken(what: str) -> SandboxError:
    return SandboxError(BROKER_PROTOCOL, f"The worker and its broker disagree: {what}.")
