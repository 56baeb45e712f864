"""The command ring's wire format: what a broker decodes from a worker that may be hostile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.errors import BROKER_PROTOCOL, SandboxError
from ringfence.agent.ring import (
    MAX_ARGUMENTS,
    MAX_FRAME,
    MAX_NAME,
    SYNCHRONOUS,
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
    decode_batch,
    decode_reply,
    encode,
    encode_reply,
    frame,
    frame_length,
)

T = TypeVar("T")

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=MAX_NAME)
ASYNCHRONOUS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Write, U64, st.binary(max_size=200)),
    st.builds(Copy, U64, U64, U64),
    st.builds(Launch, NAMES, U32, U32, st.lists(U64, max_size=MAX_ARGUMENTS).map(tuple)),
    st.builds(Gate, U32, U32, st.floats(allow_nan=False)),
    st.builds(Checkpoint, U32),
)
ANY: st.SearchStrategy[Command] = st.one_of(
    ASYNCHRONOUS, st.builds(Alloc, U64), st.builds(Read, U64, U32), st.builds(Sync, U32), st.builds(Measure, U32, U32)
)


def bytes_of(*commands: Command) -> bytes:
    return b"".join(map(encode, commands))


def unless_refused(decode: Callable[[bytes], T], data: bytes) -> T | None:
    """What `decode` makes of `data`, or None when it refuses it as it should."""
    try:
        return decode(data)
    except SandboxError as error:
        if error.code is not BROKER_PROTOCOL:
            raise
        return None


@given(st.lists(ASYNCHRONOUS, max_size=20), ANY)
def test_a_batch_comes_back_as_it_was_encoded(queued: list[Command], last: Command) -> None:
    assert decode_batch(bytes_of(*queued, last)) == [*queued, last]


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_decoded_or_refused(batch: bytes) -> None:
    commands = unless_refused(decode_batch, batch)
    assert commands is None or len(bytes_of(*commands)) == len(batch)


@given(ANY, st.data())
def test_a_batch_cut_short_is_refused(command: Command, data: st.DataObject) -> None:
    whole = encode(command)
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(SandboxError, match="past the end"):
        decode_batch(whole[:cut])


@given(ANY.filter(lambda command: isinstance(command, SYNCHRONOUS)), ANY)
def test_nothing_may_follow_a_synchronous_command(first: Command, second: Command) -> None:
    with pytest.raises(SandboxError, match="followed by another"):
        decode_batch(bytes_of(first, second))


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (b"\x00", "opcode 0"),
        (b"\x0a", "opcode 10"),
        (b"\x02" + bytes(8) + b"\xff\xff\xff\xff" + b"x", "past the end"),
        (b"\x05\x00" + bytes(9), "kernel name of 0"),
        (b"\x05\x40" + b"k" * 64 + bytes(9), "kernel name of 64"),
        (b"\x05\x01 " + bytes(9), "not printable"),
        (b"\x05\x01\xe9" + bytes(9), "not printable"),
        (b"\x05\x01k" + bytes(8) + b"\x11" + bytes(17 * 8), "17 arguments"),
    ],
)
def test_a_forged_batch_is_refused(forged: bytes, why: str) -> None:
    with pytest.raises(SandboxError, match=why):
        decode_batch(forged)


def test_a_batch_longer_than_a_frame_is_refused() -> None:
    with pytest.raises(SandboxError, match="longer than"):
        decode_batch(bytes(MAX_FRAME + 1))


@given(st.binary(max_size=100))
def test_a_payload_comes_back_as_it_was_encoded(payload: bytes) -> None:
    assert decode_reply(encode_reply(Reply(payload=payload))) == Reply(payload=payload)


@given(NAMES, st.text(st.characters(codec="utf-8"), max_size=100))
def test_a_refusal_comes_back_as_it_was_encoded(code: str, message: str) -> None:
    assert decode_reply(encode_reply(Reply(code=code, message=message))) == Reply(code=code, message=message)


@given(st.binary(max_size=100))
def test_an_arbitrary_reply_is_decoded_or_refused(data: bytes) -> None:
    reply = unless_refused(decode_reply, data)
    assert reply is None or reply.code == "" or encode_reply(reply) == data


def test_a_frame_announces_its_length_and_no_more_than_the_limit() -> None:
    assert frame_length(frame(b"four")[:4]) == 4
    assert frame_length(MAX_FRAME.to_bytes(4, "little")) == MAX_FRAME
    with pytest.raises(SandboxError, match="longer than"):
        frame_length((MAX_FRAME + 1).to_bytes(4, "little"))
