"""The ASGI application at its edge: nothing that a server hands over is allowed by accident or escapes as an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.plugin.api import HEALTH_PATH, JOBS_PATH, MSGPACK, SESSIONS_PATH
from ringfence.plugin.builtin.app import HELLO_LIMIT


async def test_what_is_right_is_allowed(world: Any) -> None:
    # Without this one, the refusals below would prove nothing.
    before = world.allowed
    answer = await world.ask(headers=world.signed(), chunks=(world.job[:9], b"", world.job[9:]))
    assert (answer.status, answer.media) == (200, MSGPACK)
    assert msgspec.msgpack.decode(answer.body)["output"] == b"output"
    answer = await world.ask(SESSIONS_PATH, chunks=(world.hello(),))
    assert (answer.status, answer.media) == (200, MSGPACK)
    assert (await world.ask(HEALTH_PATH, method="GET")).status == 204
    # A server need not give the raw path (ASGI, "HTTP connection scope").
    answer = await world.ask(headers=world.signed(), chunks=(world.job,), raw_path=None)
    assert answer.status == 200
    assert world.allowed == before + 3


@pytest.mark.parametrize("path", [JOBS_PATH, SESSIONS_PATH])
@pytest.mark.parametrize(
    "variant",
    [
        "{}/",
        "/{}",
        "//v1{tail}",
        "/v1/.{tail}",
        "/v1/..{tail}",
        "/v1/x/..{tail}",
        "/v1%2F{name}",
        "/v1%2f{name}",
        "/v1/%{hex}{rest}",
        "{};x=1",
        "{}%00",
        "{}%20",
        "{}.",
        "{upper}",
        "/V1{tail}",
        "http://localhost{}",
        "",
        "*",
        "{}\u00e9",
    ],
)
async def test_another_spelling_of_a_path_is_another_path(world: Any, path: str, variant: str) -> None:
    name = path.removeprefix("/v1/")
    raw = variant.format(
        path, tail=f"/{name}", name=name, hex=f"{ord(name[0]):x}", rest=name[1:], upper=path.upper(), x=""
    )
    body = world.job if path == JOBS_PATH else world.hello()
    before = world.allowed
    # Signed as it stands or as it should be, with the decoded path being the right one, as lax servers have it.
    for signed_path in (raw, path):
        for decoded in (raw, path):
            headers = world.signed(body, path=signed_path)
            answer = await world.ask(decoded, headers=headers, chunks=(body,), raw_path=raw.encode())
            assert (answer.status, answer.problem) == (404, "gateway.not_found")
    assert world.allowed == before


@pytest.mark.parametrize("path", [JOBS_PATH, SESSIONS_PATH, HEALTH_PATH])
@pytest.mark.parametrize("query", ["x=1", "%2e%2e/", "?", "\u00e9"])
async def test_no_path_takes_a_query(world: Any, path: str, query: str) -> None:
    body, before = (world.hello() if path == SESSIONS_PATH else world.job), world.allowed
    method = "GET" if path == HEALTH_PATH else "POST"
    headers = world.signed(body, path=path, query=f"?{query}")
    answer = await world.ask(path, method=method, headers=headers, chunks=(body,), query_string=query.encode())
    assert (answer.status, answer.problem) == (404, "gateway.not_found")
    assert world.allowed == before


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "post", "", "\u00e9"])
async def test_another_method(world: Any, method: str) -> None:
    before = world.allowed
    for path in (JOBS_PATH, SESSIONS_PATH):
        answer = await world.ask(path, method=method, headers=world.signed(), chunks=(world.job,))
        assert answer.problem == "gateway.method_not_allowed"
    assert world.allowed == before


async def test_a_signature_that_is_missing_or_elsewhere(world: Any) -> None:
    before = world.allowed
    for field_name in (b"signature", b"signature-input", b"content-digest"):
        headers = [(name, value) for name, value in world.signed() if name != field_name]
        assert (await world.ask(headers=headers, chunks=(world.job,))).problem == "integrity.signature_missing"
        twice = world.signed()
        twice += [(name, value) for name, value in twice if name == field_name]
        assert (await world.ask(headers=twice, chunks=(world.job,))).problem == "integrity.signature_malformed"
    for headers in (world.signed(path=SESSIONS_PATH), world.signed(query="?x=1"), world.signed(host="elsewhere")[1:]):
        sent = headers if headers[0][0] == b"host" else [(b"host", b"localhost"), *headers]
        assert (await world.ask(headers=sent, chunks=(world.job,))).problem == "integrity.signature_invalid"
    assert world.allowed == before


@pytest.mark.parametrize("path", [JOBS_PATH, SESSIONS_PATH])
@pytest.mark.parametrize(
    "hosts", [[], [b"localhost", b"localhost"], [b"localhost", b"elsewhere"], [b"elsewhere", b"localhost"]]
)
async def test_there_is_exactly_one_host(world: Any, path: str, hosts: list[bytes]) -> None:
    body, before = (world.job if path == JOBS_PATH else world.hello()), world.allowed
    headers = [(b"Host", host) for host in hosts] + world.signed(body, path=path)[1:]
    answer = await world.ask(path, headers=headers, chunks=(body,))
    assert (answer.status, answer.problem) == (400, "gateway.headers_malformed")
    assert world.allowed == before


@pytest.mark.parametrize("extra", [(b"x-\xff", b"1"), (b"x", b"\xe9"), (b"host", b"localhost\xff"), (b"\x80", b"")])
async def test_headers_that_are_not_ascii(world: Any, extra: tuple[bytes, bytes]) -> None:
    before = world.allowed
    for path in (JOBS_PATH, SESSIONS_PATH):
        answer = await world.ask(path, headers=[*world.signed(), extra], chunks=(world.job,))
        assert (answer.status, answer.problem) == (400, "gateway.headers_malformed")
    assert world.allowed == before


@pytest.mark.parametrize(("path", "limit"), [(JOBS_PATH, 100_000), (SESSIONS_PATH, HELLO_LIMIT)])
async def test_a_body_that_is_too_large(world: Any, path: str, limit: int) -> None:
    before = world.allowed
    for announced in (limit + 1, 10**30, "9" * 5000):
        headers = [*world.signed(), (b"content-length", str(announced).encode())]
        answer = await world.ask(path, headers=headers, chunks=(b"",))
        assert (answer.status, answer.problem) == (413, "gateway.body_too_large")
    # Unannounced, or announced as less: what counts is what comes.
    for headers in (
        world.signed(),
        [*world.signed(), (b"content-length", b"1")],
        [*world.signed(), (b"content-length", b"-1")],
    ):
        answer = await world.ask(path, headers=headers, chunks=(b"x" * limit, b"x"), ends=False)
        assert (answer.status, answer.problem) == (413, "gateway.body_too_large")
    assert world.allowed == before


async def test_a_body_that_does_not_end(world: Any) -> None:
    before, started = world.allowed, time.monotonic()
    waiting = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        if waiting.is_set():
            await asyncio.sleep(0.05)
        waiting.set()
        return {"type": "http.request", "body": b"x", "more_body": True}

    for path in (JOBS_PATH, SESSIONS_PATH):
        sent: list[MutableMapping[str, Any]] = []

        async def send(message: MutableMapping[str, Any], sent: list[MutableMapping[str, Any]] = sent) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": world.signed()}
        async with asyncio.timeout(3):
            await world.app(scope, receive, send)
        assert sent[0]["status"] == 400
        assert msgspec.json.decode(sent[1]["body"])["code"] == "gateway.body_cut_short"
    assert time.monotonic() - started < 2
    assert world.allowed == before


async def test_a_body_that_breaks_off_is_not_answered_and_not_forwarded(world: Any) -> None:
    before = world.allowed
    for path in (JOBS_PATH, SESSIONS_PATH):
        for chunks in ((b"",), (world.job,), (world.job[:5], world.job[5:])):
            assert (await world.ask(path, headers=world.signed(), chunks=chunks, ends=False)).messages == []
    assert (await world.ask(headers=world.signed(), chunks=(world.job[:-1],))).problem == "integrity.digest_mismatch"
    assert world.allowed == before


async def test_as_many_at_a_time_as_configured_and_no_more(narrow: Any) -> None:
    narrow.link.remote.hold = asyncio.Event()
    first = asyncio.create_task(narrow.ask(headers=narrow.signed(), chunks=(narrow.job,)))
    await narrow.link.remote.busy.wait()
    assert (await narrow.ask(headers=narrow.signed(), chunks=(narrow.job,))).problem == "gateway.busy"
    assert (await narrow.ask(HEALTH_PATH, method="GET")).status == 204
    narrow.link.remote.hold.set()
    assert (await first).status == 200
    assert (await narrow.ask(headers=narrow.signed(), chunks=(narrow.job,))).status == 200


def dripping(sent: list[MutableMapping[str, Any]]) -> tuple[Any, Any]:
    """A caller whose body never ends."""

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    return receive, send


async def test_strangers_with_slow_bodies_hold_nothing_that_a_caller_needs(narrow: Any) -> None:
    sent: list[MutableMapping[str, Any]] = []
    receive, send = dripping(sent)
    scopes: list[dict[str, Any]] = [
        {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "headers": [(b"host", b"localhost")],
        }
        for path in (JOBS_PATH, SESSIONS_PATH)
    ]
    strangers = [asyncio.create_task(narrow.app(scope, receive, send)) for scope in scopes * 10]
    await asyncio.sleep(0.05)
    assert (await narrow.ask(headers=narrow.signed(), chunks=(narrow.job,))).status == 200
    assert (await narrow.ask(SESSIONS_PATH, chunks=(narrow.hello(),))).status == 200
    await asyncio.gather(*strangers)
    # Whoever still sends when it is answered is told that the connection ends.
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 20
    assert all((b"connection", b"close") in message["headers"] for message in starts)


async def test_a_strangers_body_is_not_kept_and_a_headers_refusal_is_a_decision(narrow: Any) -> None:
    answer = await narrow.ask(headers=[(b"host", b"localhost")], chunks=(b"x" * 200_000,) * 5)
    problem = msgspec.json.decode(answer.body)
    # More than a body may have, but nobody counted it.
    assert problem["code"] == "integrity.signature_missing"
    assert [view["name"] for view in problem["trace"]] == ["parse", "audit"]
    decisions = [entry.record for entry in narrow.log.records()]
    assert [record.decision_id for record in decisions] == [problem["decision_id"]]


async def test_a_nonce_is_not_spent_before_the_body_is_there(world: Any) -> None:
    headers = world.signed()
    assert (await world.ask(headers=headers, chunks=(world.job[:5],), ends=False)).messages == []
    assert (await world.ask(headers=headers, chunks=(world.job[:5],))).problem == "integrity.digest_mismatch"
    assert (await world.ask(headers=headers, chunks=(world.job,))).status == 200
    assert (await world.ask(headers=headers, chunks=(world.job,))).problem == "integrity.replayed"


async def test_the_bodies_under_way_are_bounded_together(scarce: Any) -> None:
    scarce.link.remote.hold = asyncio.Event()
    first = asyncio.create_task(scarce.ask(headers=scarce.signed(), chunks=(scarce.job,)))
    await scarce.link.remote.busy.wait()
    assert (await scarce.ask(headers=scarce.signed(), chunks=(scarce.job,))).problem == "gateway.busy"
    assert (await scarce.ask(SESSIONS_PATH, chunks=(scarce.hello(),))).status == 200
    scarce.link.remote.hold.set()
    assert (await first).status == 200
    for _ in range(3):
        assert (await scarce.ask(headers=scarce.signed(), chunks=(scarce.job[:-1],))).problem
        assert (await scarce.ask(headers=scarce.signed(), chunks=(scarce.job,))).status == 200
    # One that could never fit is too large, whatever is free.
    large = b"x" * (len(scarce.job) * 2)
    assert (await scarce.ask(headers=scarce.signed(large), chunks=(large,))).problem == "gateway.body_too_large"


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "made.up"])
async def test_what_is_not_http_is_left_alone(world: Any, kind: str) -> None:
    assert (await world.ask(type=kind)).messages == []


FIELD_NAMES = st.sampled_from([b"host", b"signature", b"signature-input", b"content-digest", b"content-length"])
FIELDS = st.tuples(FIELD_NAMES | st.binary(max_size=20), st.binary(max_size=60))


@settings(max_examples=300, deadline=None)
@given(
    path=st.sampled_from([JOBS_PATH, SESSIONS_PATH, HEALTH_PATH]) | st.text(max_size=20),
    raw=st.none() | st.sampled_from([JOBS_PATH.encode(), SESSIONS_PATH.encode()]) | st.binary(max_size=20),
    method=st.sampled_from(["POST", "GET"]) | st.text(max_size=5),
    query=st.just(b"") | st.binary(max_size=10),
    headers=st.lists(FIELDS, max_size=6),
    chunks=st.lists(st.binary(max_size=60), min_size=1, max_size=3),
    client=st.none() | st.just(("127.0.0.1", 1)),
)
def test_no_nonsense_is_allowed_or_escapes(world: Any, **given_: Any) -> None:
    before = world.allowed
    answer = asyncio.run(
        world.ask(
            given_["path"],
            method=given_["method"],
            headers=given_["headers"],
            chunks=tuple(given_["chunks"]),
            raw_path=given_["raw"],
            query_string=given_["query"],
            client=given_["client"],
        )
    )
    assert answer.status == 204 or answer.problem
    assert world.allowed == before
