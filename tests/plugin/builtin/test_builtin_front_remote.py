"""A gate behind a stream is the same gate: answers, refusals, cancellation; and bounds that neither side gets past."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence import httpsig
from ringfence.agent.api.remote import Finished
from ringfence.errors import Code, Kind, RingfenceError
from ringfence.plugin.api import FACTORS_PATH, JOBS_PATH, SESSIONS_PATH, StageView
from ringfence.plugin.builtin.app import GatewayApp
from ringfence.plugin.builtin.capacity import Slots
from ringfence.plugin.builtin.front.errors import FRONT_MALFORMED, FRONT_NO_ANSWER, FRONT_OVERFLOW, FrontError
from ringfence.plugin.builtin.front.frames import Assembler, Bounds, Cancelled, Message, cancel, frames
from ringfence.plugin.builtin.front.messages import (
    Done,
    Opening,
    Refused,
    Screening,
    asked,
    decode_reply,
    encode,
    refusal,
    refused,
)
from ringfence.plugin.builtin.front.remote import RemoteGate
from ringfence.plugin.builtin.front.service import Service, Shared
from ringfence.plugin.errors import (
    GATEWAY_BUSY,
    POLICY_DENIED,
    SESSION_CAPACITY,
    STEP_UP_REQUIRED,
    GateError,
    LimitedError,
    StepUpError,
)
from ringfence.plugin.hosts.port import Inbound, Unseen
from ringfence.plugin.settling import RefusedError
from tests.plugin.builtin.conftest import ANSWER, BOUNDS, CAPACITY, MIB, FakeGate, until

TRACE = (StageView("parse", "allow", "", 3), StageView("policy", "deny", "policy.denied", 9))
DENIED = GateError(POLICY_DENIED, "No policy permits ünusual things.", field="job", hint="Ask.")
AGENTS = RingfenceError(Code("agent.made_up", Kind.DEADLINE), "Too late.")
REFUSALS: list[Exception] = [
    DENIED,
    AGENTS,
    RefusedError(DENIED),
    RefusedError(DENIED, "01J-decision", TRACE),
    RefusedError(AGENTS, "01J-decision", TRACE, Finished(b"", b"receipt", b"signature", AGENTS)),
    RefusedError(StepUpError(STEP_UP_REQUIRED, "More.", hint="Show them.", missing=("svid", "webauthn")), "d", TRACE),
    RefusedError(StepUpError(STEP_UP_REQUIRED, "More.", missing=()), "d"),
    LimitedError(SESSION_CAPACITY, "Slower.", field="source", retry_after_s=17),
    GateError(GATEWAY_BUSY, "Full."),
]


def request(body: bytes | Unseen = b"body", **further: Any) -> Inbound:
    target = httpsig.Target("POST", "localhost", JOBS_PATH)
    return replace(Inbound(target, (("host", "localhost"), ("x", "1"), ("x", "2")), "192.0.2.1", "", body), **further)


async def refused_with(attempt: Any) -> Code:
    try:
        await attempt
    except RefusedError as error:
        return error.error.code
    except RingfenceError as error:
        return error.code
    raise AssertionError("it was not refused")


async def test_every_question_reaches_the_gate_and_every_answer_comes_back(join: Any) -> None:
    gate = FakeGate()
    remote = (await join(gate)).remote
    large = bytes(range(256)) * 4096
    assert await remote.open_session(large, source="unix") == b"reply to " + large
    await remote.screen(request(Unseen.HIDDEN))
    assert await remote.submit(request(large)) == ANSWER
    assert await remote.submit(request(b"")) == ANSWER
    assert await remote.add_factors(request(b"evidence")) == ("session-mac", "svid")
    assert gate.asked == [
        ("open", (large, "unix")),
        ("screen", request(Unseen.HIDDEN)),
        ("submit", request(large)),
        ("submit", request(b"")),
        ("factors", request(b"evidence")),
    ]


@pytest.mark.parametrize("error", REFUSALS)
@pytest.mark.parametrize("path", [SESSIONS_PATH, JOBS_PATH, FACTORS_PATH])
async def test_a_refusal_is_answered_as_the_gate_itself_would(
    join: Any, world: Any, error: Exception, path: str
) -> None:
    gate = FakeGate(error)
    near = replace(world, app=GatewayApp(gate, CAPACITY))
    far = replace(world, app=GatewayApp((await join(gate)).remote, CAPACITY))
    answers = [await one.ask(path, chunks=(b"body",)) for one in (near, far)]
    assert answers[0].status >= 400
    assert answers[0].messages == answers[1].messages
    assert len(gate.asked) == 2


async def test_the_real_gate_behind_a_stream(join: Any, world: Any) -> None:
    far = replace(world, app=GatewayApp((await join(world.gate)).remote, CAPACITY))
    headers = far.signed()
    assert (await far.ask(headers=headers, chunks=(far.job,))).status == 200
    assert (await far.ask(headers=headers, chunks=(far.job,))).problem == "integrity.replayed"
    assert (await far.ask(SESSIONS_PATH, chunks=(far.hello(),))).status == 200
    assert (await far.ask(headers=far.signed()[:2], chunks=(far.job,))).problem == "integrity.signature_missing"
    assert (await far.ask(FACTORS_PATH, headers=far.signed(path=FACTORS_PATH), chunks=(far.job,))).status >= 400


TEXT = st.text(max_size=12)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(Kind),
    texts=st.tuples(TEXT, TEXT, TEXT, TEXT),
    missing=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    retry=st.none() | st.integers(0, 2**40),
    finished=st.none() | st.builds(Finished, st.just(b""), st.binary(max_size=9), st.binary(max_size=9), st.none()),
)
def test_no_refusal_loses_anything_on_its_way(
    kind: Kind, texts: tuple[str, ...], missing: Any, retry: int | None, finished: Finished | None
) -> None:
    name, message, field, hint = texts
    code, error = Code(name, kind), GateError(Code(name, kind), message, field=field, hint=hint)
    if missing is not None:
        error = StepUpError(code, message, field=field, hint=hint, missing=missing)
    elif retry is not None:
        error = LimitedError(code, message, field=field, hint=hint, retry_after_s=retry)
    sent = refused(RefusedError(error, "decision", TRACE, finished))
    reply = decode_reply(encode(sent))
    assert reply == sent
    came = refusal(sent)
    assert refused(came) == sent
    assert (type(came.error), came.error.code, came.trace) == (type(error), code, TRACE)


async def patiently(remote: RemoteGate, inbound: Inbound) -> object:
    """The answer to a job that is sent again for as long as others have not yet ended."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await remote.submit(inbound)
            except GateError as error:
                if error.code != GATEWAY_BUSY:
                    raise
                await asyncio.sleep(0.01)


async def test_whoever_goes_away_takes_its_work_along(join: Any) -> None:
    gate, one = FakeGate(), Bounds(calls=1, total=MIB, body=MIB)
    remote = (await join(gate, front=one, desk=one)).remote
    for number in range(1, 4):
        gate.hold, gate.asked = asyncio.Event(), []
        asking = asyncio.create_task(remote.submit(request()))
        await until(lambda: gate.asked)
        assert await refused_with(remote.submit(request())) == GATEWAY_BUSY
        asking.cancel()
        await asyncio.wait({asking})
        gate.hold = None
        # Its place is free again as soon as the decision process says so.
        assert await patiently(remote, request()) == ANSWER
        assert gate.cancelled == number


async def test_no_answer_in_time_is_a_refusal_and_ends_the_work(join: Any) -> None:
    gate = FakeGate(hold=asyncio.Event())
    remote = (await join(gate, timeout_s=0.1)).remote
    code = await refused_with(remote.submit(request()))
    assert (code, code.kind.http) == (FRONT_NO_ANSWER, 503)
    await until(lambda: gate.cancelled == 1)


async def test_without_a_decision_process_everything_is_refused(join: Any) -> None:
    gate = FakeGate(hold=asyncio.Event())
    link = await join(gate)
    asking = [asyncio.create_task(link.remote.submit(request())) for _ in range(5)]
    await until(lambda: len(gate.asked) == 5)
    link.desk.transport.abort()
    for one in asking:
        assert await refused_with(one) == FRONT_NO_ANSWER
    assert await refused_with(link.remote.screen(request())) == FRONT_NO_ANSWER
    # The decision process, for its part, ends what nobody waits for.
    await asyncio.wait_for(link.service, 5)
    assert gate.cancelled == 5


@pytest.mark.parametrize(("size", "fit"), [(1, BOUNDS.calls), (MIB * 2 // 5, 9)])
async def test_a_flood_stays_within_the_bounds_and_breaks_nothing(join: Any, size: int, fit: int) -> None:
    link = await join(FakeGate())
    floods = [link.remote.submit(request(bytes(size))) for _ in range(200)]
    done = await asyncio.gather(*floods, return_exceptions=True)
    turned_away = [one for one in done if isinstance(one, GateError) and one.code == GATEWAY_BUSY]
    assert (done.count(ANSWER), len(turned_away)) == (fit, 200 - fit)
    assert await link.remote.submit(request(bytes(MIB))) == ANSWER
    assert not link.service.done()


class Stuck:
    """A writer that takes one frame, and has no room until it is `free`."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.free = asyncio.Event()

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    async def drain(self) -> None:
        if self.frames:
            await self.free.wait()


async def test_whoever_has_its_answer_may_ask_again_at_once() -> None:
    # The front has the whole answer; the service still waits for room when the next question comes.
    reader, writer = asyncio.StreamReader(), Stuck()
    shared = Shared(FakeGate(), Slots(1), Slots(1), lambda _: None)
    one = Bounds(calls=1, total=1000, body=1000)
    service = asyncio.create_task(Service(shared, one, reader, cast(asyncio.StreamWriter, writer)).run())
    reader.feed_data(messages_of_one_frame(1))
    await until(lambda: writer.frames)
    reader.feed_data(messages_of_one_frame(2))
    await asyncio.sleep(0)
    writer.free.set()
    reader.feed_eof()
    await asyncio.wait_for(service, 5)


def messages_of_one_frame(call: int) -> bytes:
    return b"".join(frames(call, encode(Screening(asked(request())))))


async def test_calls_that_come_and_go_at_random_never_break_the_bounds(join: Any) -> None:
    link = await join(FakeGate())

    async def one(number: int) -> None:
        asking = asyncio.create_task(link.remote.submit(request(bytes(1 + 7919 * number % 300_000))))
        await asyncio.wait({asking}, timeout=(number % 5) * 0.002)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    for round_ in range(10):
        await asyncio.gather(*(one(round_ * 30 + number) for number in range(30)))
    assert await patiently(link.remote, request(bytes(MIB))) == ANSWER
    assert not link.service.done()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (struct.pack(">IQB", 2**31, 1, 1), FRONT_OVERFLOW),
        (b"".join(b"".join(frames(number, encode(Opening("x")))) for number in range(1, 40)), FRONT_OVERFLOW),
        (b"".join(frames(1, encode(Opening("x")), bytes(MIB + 1))), FRONT_OVERFLOW),
        (b"".join(frames(0, encode(Opening("x")))), FRONT_MALFORMED),
        (b"".join(b"".join(frames(number, encode(Opening("x")))) for number in (3, 2)), FRONT_MALFORMED),
        (bytes(100), FRONT_MALFORMED),
    ],
)
async def test_a_front_that_breaks_the_protocol_is_given_up(join: Any, sent: bytes, code: Code) -> None:
    gate = FakeGate(hold=asyncio.Event())
    link, other = await join(gate), await join(gate)
    asking = asyncio.create_task(other.remote.submit(request()))
    await until(lambda: gate.asked)
    link.front.write(sent)
    with pytest.raises(FrontError) as caught:
        await asyncio.wait_for(link.service, 5)
    assert caught.value.code == code
    # What another front asked goes on.
    assert gate.hold is not None
    gate.hold.set()
    assert await asyncio.wait_for(asking, 5) == ANSWER


async def test_what_is_no_question_is_refused_alone() -> None:
    mine, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=mine)
    shared = Shared(FakeGate(), Slots(1), Slots(1), lambda _: None)
    desk = await asyncio.open_unix_connection(sock=theirs)
    service = asyncio.create_task(Service(shared, BOUNDS, *desk).run())
    writer.write(b"".join([*frames(1, b"\xc1"), cancel(7), *frames(2, encode(Opening("x")), b"hello")]))
    assembler = Assembler(BOUNDS, lambda _call: True)
    events: list[Message | Cancelled] = []
    while len(events) < 3:
        events += list(assembler.feed(await asyncio.wait_for(reader.read(1000), 5)))
    writer.close()
    await service
    desk[1].close()
    cancelled, first, second = events
    assert cancelled == Cancelled(7)
    assert isinstance(first, Message)
    reply = decode_reply(first.head)
    assert isinstance(reply, Refused)
    assert reply.code == FRONT_MALFORMED.name
    assert second == Message(2, encode(Done()), b"reply to hello")


async def test_a_front_that_takes_no_answers_is_given_up(join: Any) -> None:
    gate = FakeGate()
    link = await join(gate, send_s=0.2)
    link.front.transport.pause_reading()
    for number in range(1, 13):
        link.front.write(b"".join(frames(number, encode(Opening("x")), bytes(MIB // 4))))
    await asyncio.wait_for(asyncio.wait({link.service}), 5)


async def test_a_bug_in_a_decision_denies_and_ends_nothing_else(join: Any) -> None:
    gate = FakeGate(KeyError("secret"))
    link = await join(gate)
    assert (await refused_with(link.remote.submit(request()))).name == "internal.bug"
    assert len(link.told) == 1
    assert "KeyError" in link.told[0]
    gate.error = None
    assert await link.remote.submit(request()) == ANSWER


async def test_all_fronts_together_have_as_many_jobs_as_allowed(join: Any) -> None:
    gate = FakeGate(hold=asyncio.Event())
    shared = Shared(gate, Slots(1), Slots(1), lambda _: None)
    first, second = [(await join(gate, shared=shared)).remote for _ in range(2)]
    waiting = [asyncio.create_task(first.submit(request())), asyncio.create_task(first.add_factors(request()))]
    await until(lambda: len(gate.asked) == 2)
    assert await refused_with(second.submit(request())) == GATEWAY_BUSY
    assert await refused_with(second.open_session(b"", source="x")) == GATEWAY_BUSY
    assert gate.hold is not None
    gate.hold.set()
    await asyncio.gather(*waiting)
    await second.screen(request())
    assert await second.submit(request()) == ANSWER
