"""The broker's execution of batches: replies, counters, and refusals that stay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.broker.serve import MAX_READ, Broker, Usage
from ringfence.agent.gpu.cpu import CpuDevice
from ringfence.agent.quantum.statevector import StatevectorDevice
from ringfence.agent.ring import (
    Alloc,
    Checkpoint,
    Command,
    Copy,
    Gate,
    Launch,
    Measure,
    Read,
    Reply,
    Sync,
    Write,
    encode,
    encode_reply,
    frame,
    frame_length,
)

POOL = 1 << 20


def batch(*commands: Command) -> bytes:
    return b"".join(map(encode, commands))


@pytest.fixture
def broker() -> Broker:
    return Broker(CpuDevice(POOL), StatevectorDevice(2))


def allocated(broker: Broker, size: int) -> int:
    return int.from_bytes(broker.execute(batch(Alloc(size))).payload, "little")


def test_a_job_gets_its_result_and_its_usage(broker: Broker) -> None:
    source, target = allocated(broker, 8), allocated(broker, 8)
    reply = broker.execute(
        batch(
            Write(source, (7).to_bytes(8, "little")),
            Launch("square_i64", 1, 64, (target, source, 1)),
            Copy(source, target, 8),
            Checkpoint(1),
            Read(source, 8),
        )
    )
    assert int.from_bytes(reply.payload, "little") == 49
    assert broker.execute(batch(Gate(0, 0, 0.0), Gate(9, 0 | 1 << 16, 0.0), Measure(1, 0))).payload == b"\x01"
    assert broker.execute(batch(Sync(0))) == Reply()
    assert broker.execute(b"") == Reply()
    used = Usage(commands=11, launches=1, gates=2, measurements=1, checkpoints=1, peak_gpu_bytes=512)
    assert broker.usage == used
    assert Usage(**json.loads(used.report())) == used
    broker.close()


def test_a_batch_that_ends_without_a_synchronous_command_has_an_empty_reply(broker: Broker) -> None:
    assert broker.execute(batch(Checkpoint(1), Checkpoint(2))) == Reply()


def test_a_full_pool_is_an_answer_and_no_refusal(broker: Broker) -> None:
    assert allocated(broker, POOL + 1) == 0
    assert allocated(broker, POOL) != 0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Read(0, 8), "gpu.fault"),
        (Write(2**64 - 8, b"12345678"), "gpu.fault"),
        (Copy(8, 8, 2**64 - 1), "gpu.fault"),
        (Launch("square_i64", 1, 1, (8, 8, 1)), "gpu.fault"),
        (Launch("square_i64", 1, 1, ()), "gpu.bad_argument"),
        (Launch("rm", 1, 1, ()), "gpu.kernel_unknown"),
        (Alloc(0), "gpu.bad_argument"),
        (Read(0, MAX_READ + 1), "gpu.bad_argument"),
        (Sync(1), "gpu.bad_argument"),
        (Gate(99, 0, 0.0), "quantum.bad_argument"),
        (Gate(3, 2, 0.0), "quantum.bad_argument"),
        (Gate(6, 0, float("nan")), "quantum.bad_argument"),
        (Measure(0, 7), "quantum.bad_argument"),
    ],
)
def test_a_refusal_names_its_code_and_stays(broker: Broker, command: Command, code: str) -> None:
    first = broker.execute(batch(Checkpoint(1), command))
    assert first.code == code
    assert first.message.endswith(".")
    assert broker.execute(batch(Alloc(8))) == first
    assert broker.execute(b"\xff") == first
    assert broker.usage.commands == 1


def test_a_batch_is_executed_whole_or_not_at_all_when_it_cannot_be_decoded(broker: Broker) -> None:
    reply = broker.execute(batch(Checkpoint(1)) + b"\xff")
    assert reply.code == "sandbox.broker_protocol"
    assert broker.usage.checkpoints == 0


@pytest.mark.parametrize("command", [Gate(3, 0, 0.0), Measure(0, 0)])
def test_a_job_without_qubits_is_told_so(command: Command) -> None:
    reply = Broker(CpuDevice(POOL), None).execute(batch(command))
    assert reply.code == "quantum.disabled"
    assert "qubits" in reply.message


def test_a_kernel_out_of_bounds_is_a_fault(broker: Broker) -> None:
    address = allocated(broker, 8)
    reply = broker.execute(batch(Launch("square_i64", 1024, 1024, (address, address, 2**32 - 1)), Sync(0)))
    assert reply.code == "gpu.fault"
    assert broker.usage.launches == 0


def test_the_largest_read_fits_into_a_frame() -> None:
    reply = frame(encode_reply(Reply(payload=bytes(MAX_READ))))
    assert frame_length(reply[:4]) == MAX_READ + 1


class _ExhaustedGpu(CpuDevice):
    """A device whose host has no memory left."""

    def read(self, address: int, length: int) -> bytes:
        raise MemoryError(f"{length} bytes at {address}")


def test_a_broker_without_memory_refuses_instead_of_dying() -> None:
    assert Broker(_ExhaustedGpu(POOL), None).execute(batch(Read(0, 1))).code == "sandbox.memory_limit"


NUMBERS = st.one_of(st.integers(0, 2**17), st.integers(0, 2**64 - 1))
SMALL = st.integers(0, 2**32 - 1)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Alloc, NUMBERS),
    st.builds(Write, NUMBERS, st.binary(max_size=16)),
    st.builds(Read, NUMBERS, st.integers(0, 300)),
    st.builds(Copy, NUMBERS, NUMBERS, NUMBERS),
    st.builds(
        Launch,
        st.sampled_from(["square_i64", "block_sum_i64", "clip_i64"]),
        st.integers(0, 5),
        st.integers(0, 1025),
        st.lists(NUMBERS, max_size=5).map(tuple),
    ),
    st.builds(Sync, st.integers(0, 1)),
    st.builds(Gate, st.integers(0, 13), st.one_of(st.integers(0, 3), SMALL), st.floats()),
    st.builds(Measure, st.integers(0, 3), st.integers(0, 2)),
    st.builds(Checkpoint, SMALL),
)


@given(st.lists(st.lists(COMMANDS, max_size=4), max_size=6))
def test_a_hostile_worker_gets_answers_and_nothing_else(batches: list[list[Command]]) -> None:
    broker = Broker(CpuDevice(POOL), StatevectorDevice(2))
    for commands in batches:
        reply = broker.execute(batch(*commands))
        assert not reply.code or reply.code.split(".")[0] in {"gpu", "quantum", "sandbox"}
    assert broker.usage.peak_gpu_bytes <= POOL
    broker.close()
