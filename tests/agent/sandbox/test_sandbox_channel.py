"""The worker's end of the ring: credit, turns, refusals, a broker that lies or dies, what the worker cannot write."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent import ring
from ringfence.agent.broker.account import ACCOUNT_BYTES
from ringfence.agent.broker.process import serve
from ringfence.agent.broker.serve import Broker
from ringfence.agent.errors import BROKER_PROTOCOL, DEVICE_FAULT, SandboxError
from ringfence.agent.gpu.cpu import CpuDevice
from ringfence.agent.mapping import Mapper
from ringfence.agent.sandbox import progress, shim
from ringfence.agent.sandbox.channel import RingChannel
from ringfence.agent.sandbox.hostcalls import HostCalls

TIMEOUT_S = 20
POOL = 8 << 20
LOST = "The device broker ended before the guest did."


@dataclass(frozen=True, slots=True)
class Ring:
    """Both ends of one ring."""

    channel: RingChannel
    broker: socket.socket
    request: memoryview
    reply: memoryview
    reply_of_worker: int

    def answer(self, consumed: int, result: bytes | ring.Refusal = b"") -> None:
        """Answer as a broker does."""
        answer, payload = ring.encode_answer(consumed, result)
        self.reply[: len(payload)] = payload
        self.broker.send(answer)

    def received(self) -> int:
        """The position in the next crossing."""
        return int(struct.unpack("<Q", self.broker.recv(64))[0])


def make(stack: ExitStack) -> Ring:
    worker, broker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker.settimeout(None)
    broker.settimeout(TIMEOUT_S)
    stack.enter_context(broker)
    stack.callback(os.close, end := worker.detach())
    files = []
    for size in (ring.REQUEST_BYTES, ring.REPLY_BYTES):
        files.append(os.memfd_create("ring", os.MFD_CLOEXEC))
        stack.callback(os.close, files[-1])
        os.ftruncate(files[-1], size)
    read_only = os.open(f"/proc/self/fd/{files[1]}", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, read_only)
    mapper = Mapper()
    return Ring(
        RingChannel(end, files[0], read_only),
        broker,
        mapper.file(files[0], ring.REQUEST_BYTES, writable=False),
        mapper.file(files[1], ring.REPLY_BYTES, writable=True),
        read_only,
    )


@pytest.fixture
def ends() -> Iterator[Ring]:
    with ExitStack() as stack:
        yield make(stack)


def slots(count: int) -> memoryview:
    return memoryview(bytes(count * ring.SLOT_BYTES))


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def protocol_error(work: Callable[[], object]) -> str:
    with pytest.raises(SandboxError) as caught:
        work()
    assert caught.value.code == BROKER_PROTOCOL
    return caught.value.message


def test_a_worker_goes_on_while_there_is_room_and_waits_for_it_otherwise(ends: Ring) -> None:
    quarter = ring.SLOTS // 4
    for _ in range(4):
        ends.channel.send(slots(quarter))
    assert [ends.received() for _ in range(4)] == [quarter * number for number in (1, 2, 3, 4)]
    sent = threading.Event()

    def more() -> None:
        ends.channel.send(slots(quarter + 1))
        sent.set()

    sender = in_thread(more)
    assert not sent.wait(0.1)
    ends.answer(quarter)
    assert not sent.wait(0.1)
    ends.answer(2 * quarter)
    assert sent.wait(TIMEOUT_S)
    sender.join()
    assert ends.received() == 5 * quarter + 1


def test_settling_waits_for_every_answer_and_gives_the_last_payload(ends: Ring) -> None:
    for _ in range(3):
        ends.channel.send(slots(2))
    for consumed, payload in ((2, b"first"), (4, b""), (6, b"last")):
        ends.answer(consumed, payload)
    # Answers to what is asked later lie in the same file, so only the last payload is there to be read.
    assert bytes(ends.channel.settle()) == b"last"
    assert bytes(ends.channel.settle()) == b""


def test_a_refusal_shows_at_the_next_settling_with_its_code(ends: Ring) -> None:
    ends.channel.send(slots(1))
    ends.channel.send(slots(1))
    ends.answer(1, ring.Refusal("gpu.fault", "It left its memory."))
    with pytest.raises(SandboxError) as caught:
        ends.channel.settle()
    assert (caught.value.code, caught.value.message) == (DEVICE_FAULT, "It left its memory.")


def test_a_refusal_with_a_code_of_no_one_is_a_protocol_error(ends: Ring) -> None:
    ends.channel.send(slots(1))
    ends.answer(1, ring.Refusal("made.up", "Trust me."))
    assert protocol_error(ends.channel.settle) == "Trust me."


@pytest.mark.parametrize("unanswered", [0, 1, 3])
def test_a_broker_that_dies_leaves_no_worker_waiting(ends: Ring, unanswered: int) -> None:
    for _ in range(unanswered):
        ends.channel.send(slots(1))
    ends.broker.close()

    def ask() -> None:
        ends.channel.send(slots(1))
        ends.channel.settle()

    assert protocol_error(ask) == LOST


def test_a_broker_that_dies_while_its_worker_waits_for_it_ends_the_wait(ends: Ring) -> None:
    ends.channel.send(slots(1))
    messages: list[str] = []
    waiting = in_thread(lambda: messages.append(protocol_error(ends.channel.settle)))
    ends.received()
    ends.broker.close()
    waiting.join(TIMEOUT_S)
    assert messages == [LOST]


def test_a_broker_that_dies_while_its_worker_waits_for_room_ends_the_wait(ends: Ring) -> None:
    ends.channel.send(slots(ring.SLOTS))
    messages: list[str] = []
    waiting = in_thread(lambda: messages.append(protocol_error(lambda: ends.channel.send(slots(1)))))
    ends.received()
    ends.broker.close()
    waiting.join(TIMEOUT_S)
    assert messages == [LOST]


@given(
    st.binary(min_size=1, max_size=40) | st.builds(struct.pack, st.just("<QII"), *[st.integers(0, 4)] * 3), st.binary()
)
def test_whatever_a_broker_answers_is_taken_or_a_protocol_error(answer: bytes, reply: bytes) -> None:
    with ExitStack() as stack:
        ends = make(stack)
        ends.channel.send(slots(1))
        ends.reply[: len(reply)] = reply
        ends.broker.send(answer)
        with contextlib.suppress(SandboxError):
            assert len(ends.channel.settle()) <= ring.REPLY_BYTES


def test_a_worker_cannot_write_its_broker_s_answers(ends: Ring) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_size_t
    libc.mmap.argtypes = (*[ctypes.c_size_t] * 2, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.mprotect.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    shared, read, write, failed = 1, 1, 2, ctypes.c_size_t(-1).value
    size = ring.REPLY_BYTES
    assert libc.mmap(0, size, read | write, shared, ends.reply_of_worker, 0) == failed
    mapped = libc.mmap(0, size, read, shared, ends.reply_of_worker, 0)
    assert mapped != failed
    assert libc.mprotect(mapped, size, read | write) == -1
    libc.munmap(ctypes.c_size_t(mapped), ctypes.c_size_t(size))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(ends.reply_of_worker, b"x", 0)


class PlainMemory:
    """A guest's memory of these bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def read(self, offset: int, length: int) -> memoryview:
        return memoryview(self.data)[offset : offset + length]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def vector(self, offset: int) -> memoryview:
        return self.read(*struct.unpack("<II", self.read(offset, 8)))

    def put_u32(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.data, offset, value)

    def put_u64(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.data, offset, value)


def test_copies_larger_than_the_ring_arrive_whole_and_come_back(ends: Ring) -> None:
    data = os.urandom(3 * ring.REQUEST_BYTES + 5)
    ends.broker.settimeout(None)
    broker = Broker(CpuDevice(POOL), None, memoryview(bytearray(ACCOUNT_BYTES)))
    serving = in_thread(lambda: serve(ends.broker.fileno(), ring.Intake(ends.request), ends.reply, broker))
    memory = PlainMemory(data)
    queue = shim.Queue(memoryview(bytearray(shim.MEMORY_BYTES)))
    page = memoryview(bytearray(progress.PAGE_BYTES))
    functions = HostCalls(memory, queue, ends.channel, page).functions()
    there = functions["amd_gpu_alloc"](len(data), 0)
    assert functions["amd_gpu_copy"](there, 0, len(data), 1) == 0
    memory.data[:] = bytes(len(data))
    assert functions["amd_gpu_copy"](0, there, len(data), 2) == 0
    assert memory.data == data
    ends.broker.shutdown(socket.SHUT_RDWR)
    serving.join(TIMEOUT_S)
    assert not serving.is_alive()
