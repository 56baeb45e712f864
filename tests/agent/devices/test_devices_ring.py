"""The command ring's wire format: what a broker takes from a worker that may be hostile."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.agent.errors import BROKER_PROTOCOL, SandboxError
from ringfence.agent.ring import (
    ANSWER_BYTES,
    MAX_ARGUMENTS,
    MAX_NAME,
    REPLY_BYTES,
    REQUEST_BYTES,
    SLOT_BYTES,
    SLOTS,
    Alloc,
    Command,
    Copy,
    Gate,
    Intake,
    Launch,
    Measure,
    Outlet,
    Read,
    Refusal,
    Sync,
    Write,
    decode_batch,
    encode,
    encode_answer,
)

T = TypeVar("T")

U8 = st.integers(0, 2**8 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=MAX_NAME)
ASYNCHRONOUS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Write, U64, st.binary(max_size=200)),
    st.builds(Copy, U64, U64, U64),
    st.builds(Launch, NAMES, U32, U32, st.lists(U64, max_size=MAX_ARGUMENTS).map(tuple)),
    st.builds(Gate, U32, U32, st.floats(allow_nan=False)),
)
SYNCHRONOUS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Alloc, U64), st.builds(Read, U64, U32), st.builds(Sync, U32), st.builds(Measure, U32, U32)
)
ANY = ASYNCHRONOUS | SYNCHRONOUS
# Slots as a taken-over worker makes them: opcodes that are nearly right, any fields, and payloads cut anywhere.
SLOT = st.builds(
    lambda opcode, rest: struct.pack("<I", opcode) + rest, st.integers(0, 10), st.binary(min_size=28, max_size=28)
)


def bytes_of(*commands: Command) -> bytes:
    return b"".join(map(encode, commands))


def unless_refused(decode: Callable[[], T]) -> T | None:
    """What `decode` gives, or None when it refuses as it should."""
    try:
        return decode()
    except SandboxError as error:
        if error.code is not BROKER_PROTOCOL:
            raise
        return None


def crossing(appended: int) -> bytes:
    return struct.pack("<Q", appended)


def slot(opcode: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> bytes:
    return struct.pack("<IIQQQ", opcode, a, b, c, d)


@given(st.lists(ASYNCHRONOUS, max_size=20), ANY)
def test_a_batch_comes_back_as_it_was_encoded(queued: list[Command], last: Command) -> None:
    batch = bytes_of(*queued, last)
    assert len(batch) % SLOT_BYTES == 0
    assert decode_batch(batch) == [*queued, last]


@given(st.lists(SLOT, max_size=12).map(b"".join) | st.binary(max_size=300))
def test_arbitrary_slots_are_decoded_or_refused(batch: bytes) -> None:
    commands = unless_refused(lambda: decode_batch(batch))
    assert commands is None or len(bytes_of(*commands)) == len(batch)


@given(st.lists(ANY, min_size=1, max_size=4), st.data())
def test_a_batch_with_a_forged_byte_is_decoded_or_refused(commands: list[Command], data: st.DataObject) -> None:
    batch = bytearray(bytes_of(*commands))
    batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(U8)
    decoded = unless_refused(lambda: decode_batch(bytes(batch)))
    assert decoded is None or len(bytes_of(*decoded)) == len(batch)


@given(st.builds(Write, U64, st.binary(min_size=1, max_size=200)) | st.builds(Launch, NAMES, U32, U32, st.just(())))
def test_a_payload_cut_short_is_refused(command: Command) -> None:
    with pytest.raises(SandboxError, match="past the end"):
        decode_batch(encode(command)[:-SLOT_BYTES])


@given(SYNCHRONOUS, ANY)
def test_nothing_may_follow_a_synchronous_command(first: Command, second: Command) -> None:
    with pytest.raises(SandboxError, match="followed by another"):
        decode_batch(bytes_of(first, second))


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (slot(0), "opcode 0"),
        (slot(9), "opcode 9"),
        (slot(2**32 - 1), "opcode 4294967295"),
        (slot(2, 1), "past the end"),
        (slot(2, 2**32 - 1) + slot(7), "past the end"),
        (slot(5, 0) + slot(0), "kernel name of 0"),
        (slot(5, 64) + bytes(64), "kernel name of 64"),
        (slot(5, 1) + b" ".ljust(32), "not printable"),
        (slot(5, 1) + b"\xe9".ljust(32), "not printable"),
        (slot(5, 1 | 17 << 8) + bytes(32 * 5), "17 arguments"),
        (slot(5, 1 | 16 << 8) + bytes(32 * 4), "past the end"),
        (slot(7)[:-1], "is not one of up to"),
        (bytes(REQUEST_BYTES + SLOT_BYTES), "is not one of up to"),
    ],
)
def test_a_forged_batch_is_refused(forged: bytes, why: str) -> None:
    with pytest.raises(SandboxError, match=why):
        decode_batch(forged)


def test_a_ring_full_of_the_smallest_commands_is_one_batch() -> None:
    assert len(decode_batch(encode(Gate(0, 0, 0.0)) * SLOTS)) == SLOTS


@given(st.lists(st.integers(0, SLOTS), max_size=12), U64)
@example([SLOTS - 1, 2, SLOTS], 0)
def test_batches_come_out_as_they_went_in_wherever_the_ring_ends(sizes: list[int], seed: int) -> None:
    shared = memoryview(bytearray(REQUEST_BYTES))
    outlet, intake = Outlet(shared), Intake(shared.toreadonly())
    for number, size in enumerate(sizes):
        batch = struct.pack("<QQQQ", seed, number, size, 7) * size
        assert outlet.free == SLOTS
        message = outlet.put(batch)
        assert outlet.free == SLOTS - size
        assert intake.take(message) == batch
        assert not outlet.settle(encode_answer(intake.consumed, b"")[0], memoryview(b""))
    assert outlet.unanswered == 0


def test_credit_comes_back_batch_by_batch() -> None:
    shared = memoryview(bytearray(REQUEST_BYTES))
    outlet, intake = Outlet(shared), Intake(shared)
    messages = [outlet.put(bytes(SLOT_BYTES * size)) for size in (100, 1, SLOTS - 101)]
    assert outlet.free == 0
    for message, free in zip(messages, (100, 101, SLOTS), strict=True):
        intake.take(message)
        outlet.settle(encode_answer(intake.consumed, b"")[0], memoryview(b""))
        assert outlet.free == free


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([b""], "0 bytes instead of 8"),
        ([b"1234567"], "7 bytes instead of 8"),
        ([b"123456789"], "9 bytes instead of 8"),
        ([crossing(SLOTS + 1)], "does not follow"),
        ([crossing(2**64 - 1)], "does not follow"),
        ([crossing(5), crossing(4)], "slot 4 does not follow slot 5"),
        ([crossing(5), crossing(SLOTS + 6)], "does not follow"),
        ([crossing(SLOTS), crossing(SLOTS), crossing(0)], "does not follow"),
    ],
)
def test_a_position_that_goes_backwards_or_too_far_is_refused(messages: list[bytes], why: str) -> None:
    intake = Intake(memoryview(bytes(REQUEST_BYTES)))
    for message in messages[:-1]:
        intake.take(message)
    before = intake.consumed
    with pytest.raises(SandboxError, match=why):
        intake.take(messages[-1])
    assert intake.consumed == before


@given(st.lists(st.binary(max_size=10) | st.integers(0, 2 * SLOTS).map(crossing) | U64.map(crossing), max_size=8))
def test_no_crossing_takes_more_than_the_ring_holds(messages: list[bytes]) -> None:
    intake = Intake(memoryview(bytes(REQUEST_BYTES)))
    taken = 0
    for message in messages:
        batch = unless_refused(lambda message=message: intake.take(message))  # type: ignore[misc]
        taken += len(batch or b"") // SLOT_BYTES
        assert batch is None or len(batch) <= REQUEST_BYTES
        assert intake.consumed == taken


def test_what_a_worker_writes_after_a_batch_was_taken_changes_nothing() -> None:
    shared = bytearray(REQUEST_BYTES)
    honest = encode(Launch("square_i64", 1, 64, (8, 8, 8)))
    shared[: len(honest)] = honest
    batch = Intake(memoryview(shared)).take(crossing(len(honest) // SLOT_BYTES))
    shared[:] = b"\xff" * REQUEST_BYTES
    assert batch == honest


@given(st.binary(max_size=100) | st.builds(Refusal, NAMES, st.text(st.characters(codec="utf-8"), max_size=100)))
def test_an_answer_comes_back_as_it_was_encoded(result: bytes | Refusal) -> None:
    outlet = Outlet(memoryview(bytearray(REQUEST_BYTES)))
    outlet.put(bytes(SLOT_BYTES))
    answer, payload = encode_answer(1, result)
    assert len(answer) == ANSWER_BYTES
    reply = memoryview(payload.ljust(REPLY_BYTES, b"?"))
    assert outlet.settle(answer, reply) == result


@given(
    st.binary(max_size=20) | st.builds(struct.pack, st.just("<QII"), st.just(1), st.integers(0, 2), U32), st.binary()
)
def test_an_arbitrary_answer_is_decoded_or_refused(answer: bytes, reply: bytes) -> None:
    outlet = Outlet(memoryview(bytearray(REQUEST_BYTES)))
    outlet.put(bytes(SLOT_BYTES))
    result = unless_refused(lambda: outlet.settle(answer, memoryview(reply)))
    assert result is None or isinstance(result, Refusal) or len(result) <= len(reply)


@pytest.mark.parametrize("consumed", [0, 2, 4, 2**64 - 1])
def test_an_answer_out_of_turn_is_refused(consumed: int) -> None:
    outlet = Outlet(memoryview(bytearray(REQUEST_BYTES)))
    outlet.put(bytes(SLOT_BYTES))
    outlet.put(bytes(SLOT_BYTES))
    with pytest.raises(SandboxError, match="out of turn"):
        outlet.settle(encode_answer(consumed, b"")[0], memoryview(b""))


def test_an_answer_that_nothing_was_asked_for_is_refused() -> None:
    with pytest.raises(SandboxError, match="out of turn"):
        Outlet(memoryview(bytearray(REQUEST_BYTES))).settle(encode_answer(0, b"")[0], memoryview(b""))
