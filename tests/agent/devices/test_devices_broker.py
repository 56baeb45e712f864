"""The broker's execution of batches: answers, counters, and refusals that stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.broker import account
from ringfence.agent.broker.account import Usage
from ringfence.agent.broker.serve import Broker
from ringfence.agent.gpu.cpu import CpuDevice
from ringfence.agent.quantum.statevector import StatevectorDevice
from ringfence.agent.ring import (
    REPLY_BYTES,
    Alloc,
    Command,
    Copy,
    Gate,
    Launch,
    Measure,
    Read,
    Refusal,
    Sync,
    Write,
    encode,
    encode_answer,
)

POOL = 1 << 20


def counted() -> memoryview:
    """An account file, as a broker has it mapped."""
    return memoryview(bytearray(account.ACCOUNT_BYTES))


def batch(*commands: Command) -> bytes:
    return b"".join(map(encode, commands))


@pytest.fixture
def broker() -> Broker:
    return Broker(CpuDevice(POOL), StatevectorDevice(2), counted())


def answered(broker: Broker, *commands: Command) -> bytes:
    """The payload of an answer that must not be a refusal."""
    result = broker.execute(batch(*commands))
    assert isinstance(result, bytes), result
    return result


def refused(broker: Broker, forged: bytes) -> Refusal:
    """The refusal of a batch that must be refused."""
    result = broker.execute(forged)
    assert isinstance(result, Refusal), result
    return result


def allocated(broker: Broker, size: int) -> int:
    return int.from_bytes(answered(broker, Alloc(size)), "little")


def test_a_job_gets_its_result_and_its_usage(broker: Broker) -> None:
    source, target = allocated(broker, 8), allocated(broker, 8)
    payload = answered(
        broker,
        Write(source, (7).to_bytes(8, "little")),
        Launch("square_i64", 1, 64, (target, source, 1)),
        Copy(source, target, 8),
        Read(source, 8),
    )
    assert int.from_bytes(payload, "little") == 49
    assert answered(broker, Gate(0, 0, 0.0), Gate(9, 0 | 1 << 16, 0.0), Measure(1, 0)) == b"\x01"
    assert answered(broker, Sync(0)) == b""
    assert answered(broker) == b""
    used = Usage(commands=10, launches=1, gates=2, measurements=1, peak_gpu_bytes=512)
    assert broker.usage == used
    broker.close()


def test_what_is_done_is_in_the_account_before_the_batch_is_answered() -> None:
    """So that a broker that is killed leaves it."""

    class Killed(BaseException):
        pass

    class Killing(CpuDevice):
        def sync(self) -> None:
            raise Killed

    file = counted()
    assert account.decode(bytes(file), most=9) is None
    broker = Broker(Killing(POOL), StatevectorDevice(2), file)
    assert account.decode(bytes(file), most=9) == Usage()
    answered(broker, Alloc(8))
    answered(broker, Measure(0, 0))
    with pytest.raises(Killed):
        broker.execute(batch(Gate(0, 0, 0.0), Sync(0)))
    used = Usage(commands=3, gates=1, measurements=1, peak_gpu_bytes=256)
    assert account.decode(bytes(file), most=256) == used
    assert account.decode(bytes(file), most=255) is None


@given(st.binary(max_size=2 * account.ACCOUNT_BYTES))
def test_an_account_that_no_broker_wrote_is_none(data: bytes) -> None:
    assert account.decode(data, most=2**63 - 1) is None


def test_a_batch_that_ends_without_a_synchronous_command_has_an_empty_answer(broker: Broker) -> None:
    assert answered(broker, Gate(0, 0, 0.0), Gate(0, 0, 0.0)) == b""


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
        (Read(0, REPLY_BYTES + 1), "gpu.bad_argument"),
        (Sync(1), "gpu.bad_argument"),
        (Gate(99, 0, 0.0), "quantum.bad_argument"),
        (Gate(3, 2, 0.0), "quantum.bad_argument"),
        (Gate(6, 0, float("nan")), "quantum.bad_argument"),
        (Measure(0, 7), "quantum.bad_argument"),
    ],
)
def test_a_refusal_names_its_code_and_stays(broker: Broker, command: Command, code: str) -> None:
    first = refused(broker, batch(Gate(0, 0, 0.0), command))
    assert first.code == code
    assert first.message.endswith(".")
    assert broker.execute(batch(Alloc(8))) == first
    assert broker.execute(b"\xff") == first
    assert broker.usage.commands == 1


def test_a_batch_is_executed_whole_or_not_at_all_when_it_cannot_be_decoded(broker: Broker) -> None:
    assert refused(broker, batch(Gate(0, 0, 0.0)) + b"\xff" * 32).code == "sandbox.broker_protocol"
    assert broker.usage.gates == 0


@pytest.mark.parametrize("command", [Gate(3, 0, 0.0), Measure(0, 0)])
def test_a_job_without_qubits_is_told_so(command: Command) -> None:
    refusal = refused(Broker(CpuDevice(POOL), None, counted()), batch(command))
    assert refusal.code == "quantum.disabled"
    assert "qubits" in refusal.message


def test_a_kernel_out_of_bounds_is_a_fault(broker: Broker) -> None:
    address = allocated(broker, 8)
    forged = batch(Launch("square_i64", 1024, 1024, (address, address, 2**32 - 1)), Sync(0))
    assert refused(broker, forged).code == "gpu.fault"
    assert broker.usage.launches == 0


def test_the_longest_refusal_and_the_largest_read_fit_into_the_reply_file(broker: Broker) -> None:
    longest = Launch("k" * 63, 2**32 - 1, 2**32 - 1, (2**64 - 1,) * 16)
    for result in (refused(broker, batch(longest)), bytes(REPLY_BYTES)):
        assert len(encode_answer(2**64 - 1, result)[1]) <= REPLY_BYTES


class _ExhaustedGpu(CpuDevice):
    """A device whose host has no memory left."""

    def read(self, address: int, length: int) -> bytes:
        raise MemoryError(f"{length} bytes at {address}")


def test_a_broker_without_memory_refuses_instead_of_dying() -> None:
    assert refused(Broker(_ExhaustedGpu(POOL), None, counted()), batch(Read(0, 1))).code == "sandbox.memory_limit"


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
)


@given(st.lists(st.lists(COMMANDS, max_size=4), max_size=6))
def test_a_hostile_worker_gets_answers_and_nothing_else(batches: list[list[Command]]) -> None:
    broker = Broker(CpuDevice(POOL), StatevectorDevice(2), counted())
    for commands in batches:
        result = broker.execute(batch(*commands))
        assert isinstance(result, bytes) or result.code.split(".")[0] in {"gpu", "quantum", "sandbox"}
    assert broker.usage.peak_gpu_bytes <= POOL
    broker.close()
