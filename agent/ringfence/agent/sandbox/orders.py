"""What the agent orders from its zygote, and what it hears back: one message a packet, with descriptors beside it.

Behind the descriptors that an order names comes, when it is `grouped`, the door of the job's cgroup, and last the
child's standard error.

Sans-IO. Both ends are Ringfence's own and no byte of a guest travels here; what does not parse is a defect and raises.
"""

from __future__ import annotations

import msgspec

from ringfence.agent.sandbox.levels import Level

MAX_PACKET = 4096
MAX_DESCRIPTORS = 9


class CompileOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="compile"):
    """Validate and compile a module. Descriptors: the module (sealed), the verdict, the compiled module."""

    child: int
    level: Level
    memory_bytes: int
    qubits: int
    compute_units: int
    grouped: bool = False


class GuestOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="guest"):
    """Run a guest. Descriptors: the compiled module, the input (both sealed), the result, progress, and with `devices`
    the worker's ends of the ring: channel, request and reply."""

    child: int
    level: Level
    entry: str
    memory_bytes: int
    deadline_ms: int
    output_bytes: int
    compute_units: int
    devices: bool
    grouped: bool = False


class DevicesOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="devices"):
    """Serve a job's devices. Descriptors: the broker's ends of channel, request and reply, and its account."""

    child: int
    gpu_memory_bytes: int
    qubits: int
    compute_units: int
    grouped: bool = False


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ready"):
    """The zygote is warm: whether it has namespaces of its own, and the memory that each child begins with."""

    isolated: bool
    own_bytes: int


class Started(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="started"):
    """A child runs; its pidfd is the one descriptor beside this."""

    child: int


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ended"):
    """A child was reaped: its exit status, negative for a signal, and the processor time it used, in milliseconds."""

    child: int
    status: int
    cpu_ms: float


class NotStarted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="not_started"):
    """The kernel refused the child, with this error number."""

    child: int
    number: int


Order = CompileOrder | GuestOrder | DevicesOrder
Answer = Ready | Started | Ended | NotStarted

_order = msgspec.msgpack.Decoder(Order)
_answer = msgspec.msgpack.Decoder(Answer)


def encode(message: Order | Answer) -> bytes:
    """The packet of a message."""
    return msgspec.msgpack.encode(message)


def decode_order(packet: bytes) -> Order:
    """The order in a packet; raises `msgspec.MsgspecError`."""
    order: Order = _order.decode(packet)
    return order


def decode_answer(packet: bytes) -> Answer:
    """The answer in a packet; raises `msgspec.MsgspecError`."""
    answer: Answer = _answer.decode(packet)
    return answer
