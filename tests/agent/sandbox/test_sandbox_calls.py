"""The host calls, the streams and the formats on their own, without a process."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent import ring
from ringfence.agent.errors import BROKER_PROTOCOL, GUEST_ARGUMENT, SandboxError
from ringfence.agent.quantum.gates import Gate
from ringfence.agent.sandbox import exchange
from ringfence.agent.sandbox.hostcalls import HostCalls
from ringfence.agent.sandbox.port import GuestJob, Limits
from ringfence.agent.sandbox.wasi import Wasi

HEADER = Path(exchange.__file__).parent / "guest" / "ringfence.h"


class PlainMemory:
    """A guest's memory of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.check(offset, len(data))
        self.data[offset : offset + len(data)] = data

    def check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > len(self.data):
            raise SandboxError(GUEST_ARGUMENT, "outside")


class RecordingChannel:
    """Keeps the batches and answers each from what the broker would."""

    def __init__(self) -> None:
        self.batches: list[list[ring.Command]] = []
        self.short = 0

    def exchange(self, batch: bytes) -> bytes:
        commands = ring.decode_batch(batch)
        self.batches.append(commands)
        match commands[-1]:
            case ring.Alloc():
                return struct.pack("<Q", 4096)
            case ring.Read(_, length):
                return bytes(length - self.short)
            case ring.Measure():
                return b"\1"
            case _:
                return b""


@pytest.fixture
def memory() -> PlainMemory:
    return PlainMemory(65536)


@pytest.fixture
def channel() -> RecordingChannel:
    return RecordingChannel()


@pytest.fixture
def call(memory: PlainMemory, channel: RecordingChannel) -> Callable[..., object]:
    functions = HostCalls(memory, channel).functions()
    return lambda name, *arguments: functions[name].call(*arguments)


def test_asynchronous_calls_cross_only_with_the_next_synchronous_one(
    call: Callable[..., object], memory: PlainMemory, channel: RecordingChannel
) -> None:
    memory.write(16, b"square_i64\0")
    memory.write(64, struct.pack("<IIQ", 2, 256, 1 << 40))
    call("quantum_gate", 9, 1 << 16, 0.5)
    call("security_checkpoint", -1)
    call("amd_gpu_copy", 4096, 0, 3, 1)
    call("amd_gpu_copy", 4096, 8192, 3, 3)
    call("amd_gpu_kernel_launch", 16, 64, 16)
    assert channel.batches == []
    assert call("quantum_measure", 1, 0) == 1
    assert channel.batches == [
        [
            ring.Gate(9, 1 << 16, 0.5),
            ring.Checkpoint(0xFFFF_FFFF),
            ring.Write(4096, b"\0\0\0"),
            ring.Copy(4096, 8192, 3),
            ring.Launch("square_i64", 2, 256, (1 << 40,)),
            ring.Measure(1, 0),
        ]
    ]


def test_a_full_buffer_crosses_by_itself_and_stays_within_a_frame() -> None:
    channel = RecordingChannel()
    functions = HostCalls(PlainMemory(20 * 1024 * 1024), channel).functions()
    functions["amd_gpu_copy"].call(4096, 0, 20 * 1024 * 1024, 1)
    functions["amd_gpu_sync"].call(0)
    writes = [command for batch in channel.batches for command in batch if isinstance(command, ring.Write)]
    assert len(channel.batches) > 1
    assert sum(len(write.data) for write in writes) == 20 * 1024 * 1024
    assert [write.address for write in writes] == [4096 + index * 4 * 1024 * 1024 for index in range(5)]


def test_what_is_left_at_the_end_still_crosses(memory: PlainMemory, channel: RecordingChannel) -> None:
    calls = HostCalls(memory, channel)
    calls.functions()["security_checkpoint"].call(1)
    calls.finish()
    calls.finish()
    assert channel.batches == [[ring.Checkpoint(1)]]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("amd_gpu_alloc", (8, 1)),
        ("amd_gpu_copy", (0, 0, 8, 0)),
        ("amd_gpu_copy", (0, 65535, 2, 1)),
        ("amd_gpu_copy", (65535, 0, 2, 2)),
        ("amd_gpu_copy", (-1, 0, 2, 2)),
        ("amd_gpu_copy", (0, 0, -1, 1)),
        ("amd_gpu_kernel_launch", (0, 64, 16)),
        ("amd_gpu_kernel_launch", (16, 64, 7)),
        ("amd_gpu_kernel_launch", (16, 64, 12)),
        ("amd_gpu_kernel_launch", (16, 64, 8 + 8 * 17)),
        ("amd_gpu_kernel_launch", (16, 65530, 16)),
        ("amd_gpu_kernel_launch", (32, 64, 16)),
        ("amd_gpu_kernel_launch", (256, 64, 16)),
        ("amd_gpu_kernel_launch", (65535, 64, 16)),
    ],
)
def test_misuse_ends_the_guest(
    call: Callable[..., object],
    memory: PlainMemory,
    channel: RecordingChannel,
    name: str,
    arguments: tuple[int, ...],
) -> None:
    memory.write(16, b"square_i64\0")
    memory.write(32, b"two words\0")
    memory.write(256, b"x" * 100)
    memory.write(65535, b"x")
    with pytest.raises(SandboxError) as caught:
        call(name, *arguments)
    assert caught.value.code == GUEST_ARGUMENT
    assert channel.batches == []


def test_an_answer_of_another_length_is_not_taken(call: Callable[..., object], channel: RecordingChannel) -> None:
    channel.short = 1
    with pytest.raises(SandboxError) as caught:
        call("amd_gpu_copy", 0, 4096, 64, 2)
    assert caught.value.code == BROKER_PROTOCOL


_INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 70000)


@given(st.data())
def test_no_arguments_break_a_host_call(data: st.DataObject) -> None:
    memory = PlainMemory(65536)
    streams = Wasi(memory, memoryview(b"input"), 100, clock=lambda number: number, random=bytes)
    functions = {**HostCalls(memory, RecordingChannel()).functions(), **streams.functions()}
    function = functions[data.draw(st.sampled_from(sorted(functions.keys() - {"proc_exit"})))]
    kinds = {
        "i32": st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(0, 70000),
        "i64": _INTEGERS,
        "f64": st.floats(),
    }
    arguments = [data.draw(kinds[name]) for name in function.parameters]
    try:
        result = function.call(*arguments)
    except SandboxError:
        return
    assert isinstance(result, int) == bool(function.results)


def test_clock_and_random_are_the_ones_given(memory: PlainMemory) -> None:
    streams = Wasi(memory, memoryview(b""), 0, clock=lambda number: 1000 + number, random=lambda count: b"r" * count)
    functions = streams.functions()
    assert functions["clock_time_get"].call(1, 0, 8) == 0
    assert functions["clock_time_get"].call(2, 0, 8) == 28
    assert memory.read(8, 8) == struct.pack("<Q", 1001)
    assert functions["random_get"].call(100, 3) == 0
    assert memory.read(99, 5) == b"\0rrr\0"
    assert functions["fd_read"].call(3, 0, 0, 0) == 8
    assert functions["fd_prestat_get"].call(3, 0) == 8
    assert functions["fd_seek"].call(0, 0, 0, 0) == 70


def test_a_read_fills_its_vectors_in_order_and_stops_where_one_stays_short(memory: PlainMemory) -> None:
    streams = Wasi(memory, memoryview(b"abcdefgh"), 0, clock=lambda number: number, random=bytes)
    read = streams.functions()["fd_read"].call
    memory.write(0, struct.pack("<IIII", 100, 2, 200, 3))
    assert read(0, 0, 2, 64) == 0
    assert (memory.read(64, 4), memory.read(100, 2), memory.read(200, 3)) == (b"\5\0\0\0", b"ab", b"cde")
    assert read(0, 0, 2, 64) == 0
    assert (memory.read(64, 4), memory.read(100, 2), memory.read(200, 3)) == (b"\3\0\0\0", b"fg", b"hde")
    assert read(0, 0, 2, 64) == 0
    assert memory.read(64, 4) == bytes(4)


@given(st.binary(max_size=200))
def test_a_result_is_read_or_refused(data: bytes) -> None:
    try:
        head = exchange.decode_head(data)
    except SandboxError:
        return
    assert head.report is None or head.report.code in ("", *exchange.CODES)


@given(st.text(), st.text())
def test_a_report_always_fits_its_head(message: str, hint: str) -> None:
    report = exchange.Report(code="sandbox.trap", message=message * 50, hint=hint * 50)
    head = exchange.encode_head(7, 2, exchange.encode_report(report))
    assert len(head) <= exchange.OUTPUT_OFFSET
    read = exchange.decode_head(head)
    assert (read.peak_memory_bytes, read.phase) == (7, 2)
    assert read.report is not None
    assert read.report.message == exchange.readable(message * 50)


def test_a_job_comes_out_as_it_went_in() -> None:
    job = GuestJob(b"module", b"input", Limits(1 << 20, 2, 3000, 4, 5))
    seen = exchange.decode_job(memoryview(exchange.encode_job(job)))
    assert (bytes(seen.module), bytes(seen.input)) == (b"module", b"input")
    assert (seen.memory_bytes, seen.deadline_ms, seen.output_bytes) == (1 << 20, 3000, 4)


def test_the_header_and_the_gate_table_agree() -> None:
    names = dict(re.findall(r"#define RINGFENCE_(\w+) (\d+)", HEADER.read_text(encoding="ascii")))
    for gate in Gate:
        assert int(names["H_GATE" if gate.name == "H" else gate.name]) == gate.number


def test_the_header_declares_what_the_host_offers(memory: PlainMemory, channel: RecordingChannel) -> None:
    declared = set(re.findall(r'RINGFENCE_IMPORT\("(\w+)"\)', HEADER.read_text(encoding="ascii")))
    assert declared == set(HostCalls(memory, channel).functions())
