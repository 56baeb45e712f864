"""The host calls and the streams on their own, without wasm and without a process."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent import ring
from ringfence.agent.errors import BROKER_PROTOCOL, GUEST_ARGUMENT, OUTPUT_LIMIT, SandboxError
from ringfence.agent.sandbox import exchange, progress, shim
from ringfence.agent.sandbox.hostcalls import HostCalls
from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, WASI
from ringfence.agent.sandbox.shim import Queue
from ringfence.agent.sandbox.wasi import GuestExit, Wasi

CLOCKS = (lambda: 1000, lambda: 1001)


class PlainMemory:
    """A guest's memory of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, offset: int, length: int) -> memoryview:
        self.check(offset, length)
        return memoryview(self.data)[offset : offset + length]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.check(offset, len(data))
        self.data[offset : offset + len(data)] = data

    def vector(self, offset: int) -> memoryview:
        return self.read(*struct.unpack("<II", self.read(offset, 8)))

    def put_u32(self, offset: int, value: int) -> None:
        self.write(offset, struct.pack("<I", value))

    def put_u64(self, offset: int, value: int) -> None:
        self.write(offset, struct.pack("<Q", value))

    def bytes(self, offset: int, length: int) -> bytes:
        return bytes(self.read(offset, length))

    def check(self, offset: int, length: int) -> None:
        if offset + length > len(self.data):
            raise SandboxError(GUEST_ARGUMENT, "outside")


class RecordingChannel:
    """Keeps the batches and answers each from what the broker would."""

    def __init__(self) -> None:
        self.batches: list[list[ring.Command]] = []
        self.short = 0

    def send(self, slots: memoryview) -> None:
        self.batches.append(ring.decode_batch(bytes(slots)))

    def settle(self) -> bytes:
        match self.batches[-1][-1] if self.batches else None:
            case ring.Alloc():
                return struct.pack("<Q", 4096)
            case ring.Read(_, length):
                return bytes(length - self.short)
            case ring.Measure():
                return b"\1"
            case _:
                return b""


class Guest:
    """The device calls of a guest, without one."""

    def __init__(self, memory_bytes: int = 65536) -> None:
        self.memory = PlainMemory(memory_bytes)
        self.channel = RecordingChannel()
        self.page = memoryview(bytearray(progress.PAGE_BYTES))
        self.queue = Queue(memoryview(bytearray(shim.MEMORY_BYTES)))
        self.calls = HostCalls(self.memory, self.queue, self.channel, self.page)

    def call(self, name: str, *arguments: int) -> int | None:
        return self.calls.functions()[name](*arguments)


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_asynchronous_calls_cross_only_with_the_next_synchronous_one(guest: Guest) -> None:
    guest.memory.write(16, b"square_i64\0")
    guest.memory.write(64, struct.pack("<IIQ", 2, 256, 1 << 40))
    guest.memory.write(0, b"abc")
    assert guest.call("amd_gpu_copy", 4096, 0, 3, 1) == 0
    guest.call("amd_gpu_copy", 4096, 8192, 3, 3)
    guest.call("amd_gpu_kernel_launch", 16, 64, 16)
    assert guest.channel.batches == []
    assert guest.call("quantum_measure", 1, 0) == 1
    assert guest.channel.batches == [
        [
            ring.Write(4096, b"abc"),
            ring.Copy(4096, 8192, 3),
            ring.Launch("square_i64", 2, 256, (1 << 40,)),
            ring.Measure(1, 0),
        ]
    ]
    assert progress.said(guest.page, progress.COMMANDS) == 6


def test_a_copy_larger_than_the_ring_crosses_in_parts_that_each_fit() -> None:
    size = 3 * ring.REQUEST_BYTES + 17
    guest = Guest(size)
    guest.memory.write(0, bytes(range(256)) * (size // 256))
    guest.call("amd_gpu_copy", 4096, 0, size, 1)
    guest.call("amd_gpu_sync", 0)
    writes = [command for batch in guest.channel.batches for command in batch if isinstance(command, ring.Write)]
    assert b"".join(write.data for write in writes) == guest.memory.data
    assert [write.address for write in writes] == [
        4096 + sum(len(earlier.data) for earlier in writes[:index]) for index in range(len(writes))
    ]
    assert max(len(write.data) for write in writes) < shim.QUEUE_BYTES


def test_a_copy_from_the_device_larger_than_an_answer_comes_in_parts() -> None:
    guest = Guest(2 * ring.REPLY_BYTES + 5)
    guest.call("amd_gpu_copy", 0, 4096, len(guest.memory.data), 2)
    reads = [batch[-1] for batch in guest.channel.batches]
    assert reads == [
        ring.Read(4096 + start, length) for start, length in ((0, 1 << 20), (1 << 20, 1 << 20), (2 << 20, 5))
    ]


@pytest.mark.parametrize("spare", range(5))
def test_a_queue_that_is_nearly_full_crosses_before_what_does_not_fit(spare: int) -> None:
    guest = Guest()
    guest.memory.write(16, b"square_i64\0")
    guest.memory.write(64, struct.pack("<II6Q", 2, 256, *range(6)))
    gate = ring.encode(ring.Gate(0, 0, 0.0))
    guest.queue.append(gate * (shim.QUEUE_BYTES // ring.SLOT_BYTES - spare))
    guest.call("amd_gpu_kernel_launch", 16, 64, 56)
    guest.call("amd_gpu_copy", 8, 0, 100, 1)
    guest.call("amd_gpu_sync", 0)
    commands = [command for batch in guest.channel.batches for command in batch if not isinstance(command, ring.Gate)]
    assert commands[0] == ring.Launch("square_i64", 2, 256, tuple(range(6)))
    assert b"".join(command.data for command in commands if isinstance(command, ring.Write)) == guest.memory.data[:100]
    assert commands[-1] == ring.Sync(0)


def test_nothing_to_copy_crosses_nothing(guest: Guest) -> None:
    for direction in (1, 2):
        assert guest.call("amd_gpu_copy", 0, 0, 0, direction) == 0
    assert guest.channel.batches == []


def test_what_is_left_at_the_end_still_crosses(guest: Guest) -> None:
    guest.call("amd_gpu_copy", 1, 2, 3, 3)
    guest.calls.finish()
    guest.calls.finish()
    assert guest.channel.batches == [[ring.Copy(1, 2, 3)]]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("amd_gpu_alloc", (8, 1)),
        ("amd_gpu_copy", (0, 0, 8, 0)),
        ("amd_gpu_copy", (0, 0, 8, 2**32 - 1)),
        ("amd_gpu_copy", (0, 65535, 2, 1)),
        ("amd_gpu_copy", (65535, 0, 2, 2)),
        ("amd_gpu_copy", (2**64 - 1, 0, 2, 2)),
        ("amd_gpu_copy", (0, 0, 2**64 - 1, 1)),
        ("amd_gpu_copy", (0, 0, 2**64 - 1, 2)),
        ("amd_gpu_kernel_launch", (0, 64, 16)),
        ("amd_gpu_kernel_launch", (16, 64, 7)),
        ("amd_gpu_kernel_launch", (16, 64, 12)),
        ("amd_gpu_kernel_launch", (16, 64, 8 + 8 * 17)),
        ("amd_gpu_kernel_launch", (16, 65530, 16)),
        ("amd_gpu_kernel_launch", (16, 2**32 - 8, 16)),
        ("amd_gpu_kernel_launch", (32, 64, 16)),
        ("amd_gpu_kernel_launch", (256, 64, 16)),
        ("amd_gpu_kernel_launch", (65535, 64, 16)),
    ],
)
def test_misuse_ends_the_guest(guest: Guest, name: str, arguments: tuple[int, ...]) -> None:
    guest.memory.write(16, b"square_i64\0")
    guest.memory.write(32, b"two words\0")
    guest.memory.write(256, b"x" * 100)
    guest.memory.write(65535, b"x")
    with pytest.raises(SandboxError) as caught:
        guest.call(name, *arguments)
    assert caught.value.code == GUEST_ARGUMENT
    assert guest.channel.batches == []


def test_an_answer_of_another_length_is_not_taken(guest: Guest) -> None:
    guest.channel.short = 1
    with pytest.raises(SandboxError) as caught:
        guest.call("amd_gpu_copy", 0, 4096, 64, 2)
    assert caught.value.code == BROKER_PROTOCOL


def test_every_import_has_its_function_and_only_those(guest: Guest) -> None:
    streams = Wasi(guest.memory, memoryview(b""), 0, clocks=CLOCKS, random=bytes)
    passed_on = {(RINGFENCE, name) for name in guest.calls.functions()} | {(WASI, name) for name in streams.functions()}
    assert passed_on == {(one.module, one.name) for one in shim.HOSTED}


@given(st.data())
def test_no_arguments_break_a_host_call(data: st.DataObject) -> None:
    guest = Guest()
    streams = Wasi(guest.memory, memoryview(b"input"), 100, clocks=CLOCKS, random=bytes)
    functions = {(RINGFENCE, name): function for name, function in guest.calls.functions().items()}
    functions |= {(WASI, name): function for name, function in streams.functions().items()}
    key = data.draw(st.sampled_from(sorted(functions)))
    kinds = {
        "i32": st.integers(0, 2**32 - 1) | st.integers(0, 70000),
        "i64": st.integers(0, 2**64 - 1) | st.integers(0, 70000),
    }
    arguments = [data.draw(kinds[name]) for name in IMPORTS[key].parameters]
    try:
        result = functions[key](*arguments)
    except (SandboxError, GuestExit):
        return
    assert isinstance(result, int) == bool(IMPORTS[key].results)


@pytest.fixture
def wasi(guest: Guest) -> Callable[..., Wasi]:
    def make(given: bytes = b"", limit: int = 0) -> Wasi:
        return Wasi(guest.memory, memoryview(given), limit, clocks=CLOCKS, random=lambda count: b"r" * count)

    return make


def test_clock_and_random_are_the_ones_given(guest: Guest, wasi: Callable[..., Wasi]) -> None:
    functions = wasi().functions()
    for clock in (0, 1):
        assert functions["clock_time_get"](clock, 0, 8) == 0
        assert guest.memory.bytes(8, 8) == struct.pack("<Q", CLOCKS[clock]())
    for clock in (2, 2**32 - 1):
        assert functions["clock_time_get"](clock, 0, 8) == 28
    assert functions["random_get"](100, 3) == 0
    assert guest.memory.bytes(99, 5) == b"\0rrr\0"
    assert functions["fd_read"](3, 0, 0, 0) == 8
    assert functions["fd_prestat_get"](3, 0) == 8
    assert functions["fd_seek"](0, 0, 0, 0) == 70


def test_a_read_fills_its_vectors_in_order_and_stops_where_one_stays_short(
    guest: Guest, wasi: Callable[..., Wasi]
) -> None:
    memory = guest.memory
    read = wasi(b"abcdefgh").functions()["fd_read"]
    memory.write(0, struct.pack("<IIII", 100, 2, 200, 3))
    assert read(0, 0, 2, 64) == 0
    assert (memory.bytes(64, 4), memory.bytes(100, 2), memory.bytes(200, 3)) == (b"\5\0\0\0", b"ab", b"cde")
    assert read(0, 0, 2, 64) == 0
    assert (memory.bytes(64, 4), memory.bytes(100, 2), memory.bytes(200, 3)) == (b"\3\0\0\0", b"fg", b"hde")
    assert read(0, 0, 2, 64) == 0
    assert memory.bytes(64, 4) == bytes(4)


def test_a_write_takes_its_vectors_in_order_up_to_the_limit(guest: Guest, wasi: Callable[..., Wasi]) -> None:
    streams = wasi(limit=5)
    write = streams.functions()["fd_write"]
    guest.memory.write(0, struct.pack("<IIII", 100, 2, 200, 3))
    guest.memory.write(100, b"ab")
    guest.memory.write(200, b"cde")
    assert write(1, 0, 2, 64) == 0
    assert (bytes(streams.output), guest.memory.bytes(64, 4)) == (b"abcde", b"\5\0\0\0")
    with pytest.raises(SandboxError) as caught:
        write(1, 0, 1, 64)
    assert caught.value.code == OUTPUT_LIMIT
    assert write(2, 0, 2, 64) == 0
    assert streams.diagnostics == b"abcde"
    assert write(0, 0, 1, 64) == 8
    assert write(1, 0, 1025, 64) == 28


def test_vectors_that_name_more_than_a_word_counts_are_counted_modulo_it() -> None:
    memory = PlainMemory((4 << 20) + 4)
    memory.write(0, struct.pack("<II", 0, len(memory.data)) * 1024)
    streams = Wasi(memory, memoryview(b""), 0, clocks=CLOCKS, random=bytes)
    assert streams.functions()["fd_write"](2, 0, 1024, 16384) == 0
    assert memory.bytes(16384, 4) == struct.pack("<I", 4096)


@given(st.binary(max_size=200))
def test_a_result_is_read_or_refused(data: bytes) -> None:
    try:
        head = exchange.decode_head(data)
    except SandboxError:
        return
    assert head.report is None or head.report.refusal is None or head.report.refusal.code in exchange.CODES


@given(st.text(), st.text())
def test_a_report_always_fits_its_head(message: str, hint: str) -> None:
    refusal = exchange.Refusal.of(SandboxError(GUEST_ARGUMENT, message * 50, hint=hint * 50))
    head = exchange.encode_head(7, 1, exchange.Report(refusal=refusal))
    assert len(head) <= exchange.OUTPUT_OFFSET
    read = exchange.decode_head(head)
    assert (read.peak_memory_bytes, read.phase) == (7, 1)
    assert read.report == exchange.Report(refusal=refusal)
