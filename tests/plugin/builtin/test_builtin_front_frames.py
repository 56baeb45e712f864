"""Frames between a front and the decision process: whole messages come out, and nothing holds more than it may."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.plugin.builtin.front.errors import FRONT_MALFORMED, FRONT_OVERFLOW, FrontError
from ringfence.plugin.builtin.front.frames import (
    FRAME_LIMIT,
    Assembler,
    Bounds,
    Cancelled,
    Message,
    Part,
    cancel,
    frames,
)

BOUNDS = Bounds(calls=4, total=3 * FRAME_LIMIT, body=2 * FRAME_LIMIT)


def frame(call: int, part: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IQB", len(payload), call, part) + payload


def anything(bounds: Bounds = BOUNDS) -> Assembler:
    return Assembler(bounds, lambda _call: True)


@settings(max_examples=100, deadline=None)
@given(
    messages=st.lists(
        st.tuples(st.binary(max_size=40), st.sampled_from([0, 1, 50, FRAME_LIMIT, FRAME_LIMIT + 1, 2 * FRAME_LIMIT])),
        max_size=4,
    ),
    data=st.data(),
)
def test_interleaved_messages_come_out_whole_however_they_are_cut(
    messages: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    bounds = Bounds(calls=4, total=8 * FRAME_LIMIT + 1000, body=2 * FRAME_LIMIT)
    sent = [Message(call, head, bytes([call]) * size) for call, (head, size) in enumerate(messages)]
    pending = [iter(list(frames(one.call, one.head, one.body))) for one in sent]
    stream = b""
    while pending:
        chosen = data.draw(st.sampled_from(pending))
        piece = next(chosen, None)
        if piece is None:
            pending.remove(chosen)
        else:
            stream += piece
    step = data.draw(st.sampled_from([7, 1000, 100_000, len(stream) or 1]))
    step = step if step >= 1000 or len(stream) < 10_000 else 1000
    assembler, got = anything(bounds), []
    for start in range(0, len(stream), step):
        got += list(assembler.feed(stream[start : start + step]))
    assert sorted(got, key=lambda one: one.call) == sent
    assert assembler.held == sum(len(one.head) + len(one.body) for one in sent)
    for one in sent:
        assembler.forget(one.call)
    assert assembler.held == 0


@pytest.mark.parametrize(
    "stream",
    [
        frame(1, 0),
        frame(1, 6),
        frame(1, Part.CANCEL, b"x"),
        frame(1, Part.BODY, b"x"),
        frame(1, Part.LAST, b"x"),
        frame(1, Part.HEAD) + frame(1, Part.BODY),
        frame(1, Part.HEAD) + frame(1, Part.LAST),
        frame(1, Part.HEAD) + frame(1, Part.HEAD),
        frame(1, Part.WHOLE) + frame(1, Part.WHOLE),
        frame(1, Part.WHOLE) + frame(1, Part.LAST, b"x"),
        frame(1, Part.HEAD) + cancel(1) + frame(1, Part.LAST, b"x"),
    ],
)
def test_frames_that_do_not_fit_together(stream: bytes) -> None:
    with pytest.raises(FrontError) as caught:
        list(anything().feed(stream))
    assert caught.value.code == FRONT_MALFORMED


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack(">IQB", FRAME_LIMIT + 1, 1, Part.WHOLE),
        struct.pack(">IQB", 2**32 - 1, 1, Part.BODY),
        b"".join(frame(call, Part.WHOLE) for call in range(5)),
        b"".join(frame(call, Part.HEAD) for call in range(5)),
        b"".join(frame(call, Part.WHOLE, bytes(FRAME_LIMIT)) for call in range(4)),
        b"".join(frames(1, b"", bytes(2 * FRAME_LIMIT + 1))),
        b"".join(frames(1, b"", bytes(2 * FRAME_LIMIT))) + b"".join(frames(2, b"x", bytes(FRAME_LIMIT))),
    ],
)
def test_what_would_be_too_much(stream: bytes) -> None:
    with pytest.raises(FrontError) as caught:
        list(anything().feed(stream))
    assert caught.value.code == FRONT_OVERFLOW


def test_a_call_that_is_not_admitted() -> None:
    assembler = Assembler(BOUNDS, lambda call: call == 7)
    assert list(assembler.feed(frame(7, Part.WHOLE, b"x"))) == [Message(7, b"x", b"")]
    with pytest.raises(FrontError):
        list(assembler.feed(frame(8, Part.WHOLE, b"x")))


def test_what_is_cancelled_half_way_holds_nothing() -> None:
    assembler = anything()
    first, *_ = frames(1, b"head", bytes(FRAME_LIMIT + 1))
    assert list(assembler.feed(first + cancel(1) + cancel(9))) == [Cancelled(1), Cancelled(9)]
    assert assembler.held == 0


def test_what_is_whole_counts_until_it_is_forgotten() -> None:
    assembler = anything()
    assert len(list(assembler.feed(frame(1, Part.WHOLE, b"head") + cancel(1)))) == 2
    assert assembler.held == 4
    assembler.forget(1)
    assembler.forget(1)
    assert assembler.held == 0


def test_a_head_that_no_frame_carries() -> None:
    with pytest.raises(FrontError):
        list(frames(1, bytes(FRAME_LIMIT + 1)))


FRAMES = st.one_of(
    st.binary(max_size=60),
    st.builds(frame, st.integers(0, 5), st.integers(0, 6), st.binary(max_size=20)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=12))
def test_nonsense_is_refused_or_holds_no_more_than_it_may(pieces: list[bytes]) -> None:
    assembler = anything(Bounds(calls=3, total=50, body=25))
    with contextlib.suppress(FrontError):
        for piece in pieces:
            for event in assembler.feed(piece):
                if isinstance(event, Message):
                    assert len(event.body) <= 25
            assert assembler.held <= 50
