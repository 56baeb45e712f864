"""The ASGI middleware, driven by hand and by Starlette and FastAPI."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ringfence.plugin.hosts.asgi import DEFAULTS, AsgiSettings, RingfenceMiddleware
from ringfence.plugin.hosts.asgi_scope import App, Message
from ringfence.plugin.hosts.exemptions import Exemptions
from ringfence.plugin.hosts.port import ASSERTION, Answer, Inbound, Unseen
from tests.plugin.hosts.hosts_scene import CHALLENGE, TOKEN, ScriptedGatekeeper
from tests.plugin.hosts.hosts_variants import VARIANTS

Headers = list[tuple[bytes, bytes]]


class Inner:
    """An application that keeps what it was given."""

    def __init__(self) -> None:
        self.scopes: list[Message] = []
        self.messages: list[Message] = []

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            return
        while True:
            self.messages.append(await receive())
            if not self.messages[-1].get("more_body", False):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def scope_of(raw: bytes = b"/", headers: Iterable[tuple[bytes, bytes]] = (), **more: Any) -> dict[str, Any]:
    path, _, query = raw.partition(b"?")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/decoded",
        "raw_path": path,
        "query_string": query,
        "headers": [(b"host", b"h.test"), *headers],
        "client": ("192.0.2.1", 1234),
        **more,
    }


async def call(app: App, scope: Message, parts: Iterable[Message] = ()) -> list[Message]:
    sent: list[Message] = []
    waiting = list(parts) or [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def middleware(**settings: Any) -> tuple[RingfenceMiddleware, Inner, ScriptedGatekeeper]:
    inner, gatekeeper = Inner(), ScriptedGatekeeper()
    return (
        RingfenceMiddleware(
            inner, gatekeeper, upstream="service", settings=msgspec.structs.replace(DEFAULTS, **settings)
        ),
        inner,
        gatekeeper,
    )


def pieces(*bodies: bytes) -> list[Message]:
    return [
        {"type": "http.request", "body": body, "more_body": index < len(bodies) - 1}
        for index, body in enumerate(bodies)
    ]


async def test_an_allowed_request_reaches_the_application_with_the_assertion() -> None:
    app, inner, gatekeeper = middleware()
    spoofed = [
        (b"x-ringfence-assertion", b"forged"),
        (b"x-ringfence-other", b"forged"),
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"forwarded", b"for=6.6.6.6"),
        (b"x-real-ip", b"6.6.6.6"),
        (b"x-mine", b"kept"),
    ]
    sent = await call(app, scope_of(b"/a%20b?c=d", spoofed))
    assert sent[0]["status"] == 200
    (scope,) = inner.scopes
    assert scope["headers"] == [(b"host", b"h.test"), (b"x-mine", b"kept"), (ASSERTION.encode(), TOKEN.encode())]
    assert (scope["raw_path"], scope["client"]) == (b"/a%20b", ("192.0.2.1", 1234))
    (inbound,) = gatekeeper.seen
    assert (inbound.target.path, inbound.target.query, inbound.source) == ("/a%20b", "?c=d", "192.0.2.1")
    assert inbound.body is Unseen.ABSENT


async def test_the_session_cookie_of_a_browser_stays_here() -> None:
    app, inner, _ = middleware()
    for sent in (b"__Host-ringfence=a.b", b"a=1; __Host-ringfence=a.b; c=2", b"a=__Host-ringfence"):
        await call(app, scope_of(headers=[(b"cookie", sent)]))
    kept = [[value for name, value in scope["headers"] if name == b"cookie"] for scope in inner.scopes]
    assert kept == [[], [b"a=1; c=2"], [b"a=__Host-ringfence"]]


async def test_the_body_is_shown_before_the_application_sees_any_of_it() -> None:
    app, inner, gatekeeper = middleware()
    await call(app, scope_of(method="POST", headers=[(b"content-length", b"9")]), pieces(b"one", b"two", b"abc"))
    assert [inbound.body for inbound in gatekeeper.seen] == [b"onetwoabc"]
    assert inner.messages == [{"type": "http.request", "body": b"onetwoabc", "more_body": False}]
    app, inner, gatekeeper = middleware()
    sent = await call(app, scope_of(headers=[(b"x-test", b"tampered")]), pieces(b"one", b"two"))
    assert (sent[0]["status"], inner.scopes) == (401, [])


async def test_a_hidden_body_streams_and_is_said_to_be_hidden() -> None:
    app, inner, gatekeeper = middleware(body="hidden", body_bytes=0)
    await call(app, scope_of(method="POST"), pieces(b"one", b"two"))
    assert [inbound.body for inbound in gatekeeper.seen] == [Unseen.HIDDEN]
    assert [message["body"] for message in inner.messages] == [b"one", b"two"]


@pytest.mark.parametrize("parts", [pieces(b"12345678901"), pieces(b"123456", b"789012"), pieces(b"", *[b"1"] * 11)])
async def test_a_body_beyond_the_bound_is_refused(parts: list[Message]) -> None:
    app, inner, gatekeeper = middleware(body_bytes=10)
    sent = await call(app, scope_of(), parts)
    assert (sent[0]["status"], inner.scopes, gatekeeper.seen) == (413, [], [])


async def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    app, inner, _ = middleware(body_bytes=10)
    sent = await call(app, scope_of(headers=[(b"content-length", b"11")]), [{"type": "unread"}])
    assert (sent[0]["status"], inner.scopes) == (413, [])


@pytest.mark.parametrize("parts", [[{"type": "http.request", "body": b"a", "more_body": True}], []])
async def test_a_slow_body_is_refused_in_time(parts: list[Message]) -> None:
    app, inner, gatekeeper = middleware(body_timeout_s=0.05)
    headers = [(b"transfer-encoding", b"chunked")]
    waiting = parts or [{"type": "http.request", "body": b"", "more_body": True}]
    sent = await call(app, scope_of(headers=headers), waiting)
    assert (sent[0]["status"], inner.scopes, gatekeeper.seen) == (504, [], [])


async def test_a_client_that_leaves_halfway_is_not_decided_on() -> None:
    app, inner, gatekeeper = middleware()
    parts: list[Message] = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}]
    assert await call(app, scope_of(), parts) == []
    assert (inner.scopes, gatekeeper.seen) == ([], [])


@pytest.mark.parametrize(
    ("script", "status"), [("deny", 403), ("step-up", 401), ("replayed", 409), ("full", 429), ("tampered", 401)]
)
async def test_a_refusal_is_answered_as_it_was_decided(script: str, status: int) -> None:
    app, inner, _ = middleware()
    sent = await call(app, scope_of(headers=[(b"x-test", script.encode())]))
    assert (sent[0]["status"], json.loads(sent[1]["body"])["status"], inner.scopes) == (status, status, [])
    if status == 401:
        assert (b"www-authenticate", CHALLENGE.encode()) in sent[0]["headers"]


@pytest.mark.parametrize(
    "scope",
    [
        scope_of(raw_path=None),
        scope_of(b"/a/../b"),
        scope_of(b"/caf\xc3\xa9"),
        scope_of(headers=[(b"host", b"other")]),
        scope_of(headers=[(b"connection", b"x-ringfence-assertion")]),
        scope_of(headers=[(b"content-length", b"-1")]),
        scope_of(headers=[(b"content-length", b"1"), (b"content-length", b"1")]),
        scope_of(headers=[(b"x_ringfence_assertion", b"forged")]),
        scope_of(headers=[(b"a", b"\xe9")]),
        scope_of(raw_path=b"/a?b"),
        scope_of(method="CONNECT"),
    ],
)
async def test_what_cannot_be_meant_is_refused_without_a_decision(scope: Message) -> None:
    app, inner, gatekeeper = middleware()
    sent = await call(app, scope)
    assert (sent[0]["status"], inner.scopes, gatekeeper.seen) == (400, [], [])


async def test_every_variant_is_refused_or_shown_exactly() -> None:
    passed = 0
    for variant in VARIANTS:
        app, inner, gatekeeper = middleware()
        raw = variant.encode("latin-1")
        await call(app, scope_of(raw))
        if inner.scopes:
            target, (scope,) = gatekeeper.seen[0].target, inner.scopes
            assert (target.path, target.query[1:]) == (scope["raw_path"].decode(), scope["query_string"].decode())
            passed += 1
    assert 60 < passed < len(VARIANTS)


async def test_clients_behind_own_proxies_are_named_by_them() -> None:
    app, inner, gatekeeper = middleware(hops=("192.0.2.0/24",))
    await call(app, scope_of(headers=[(b"x-forwarded-for", b"6.6.6.6, 198.51.100.9")]))
    assert (gatekeeper.seen[0].source, inner.scopes[0]["client"]) == ("198.51.100.9", ("198.51.100.9", 0))


async def test_exempt_paths_pass_without_a_decision_and_without_forged_fields() -> None:
    app, inner, gatekeeper = middleware(exemptions=Exemptions(exempt=("/healthz",)))
    sent = await call(app, scope_of(b"/healthz", [(b"x-ringfence-assertion", b"forged")]))
    assert (sent[0]["status"], gatekeeper.seen) == (200, [])
    assert inner.scopes[0]["headers"] == [(b"host", b"h.test")]


async def test_websockets_are_refused_unless_exempt_and_lifespan_passes() -> None:
    app, inner, gatekeeper = middleware(exemptions=Exemptions(exempt=("/ws",)))
    scope = {name: value for name, value in scope_of(b"/other", type="websocket").items() if name != "method"}
    sent = await call(app, scope, [{"type": "websocket.connect"}])
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    await call(app, {**scope, "raw_path": b"/ws"})
    await call(app, {"type": "lifespan"})
    assert [one["type"] for one in inner.scopes] == ["websocket", "lifespan"]
    assert await call(app, {**scope, "type": "webtransport"}) == []
    assert (len(inner.scopes), gatekeeper.seen) == (2, [])


class LateGatekeeper:
    async def decide(self, inbound: Inbound) -> Answer:
        await asyncio.sleep(60)
        return Answer(200, decision_id=inbound.upstream)


async def test_late_and_too_many_decisions_deny() -> None:
    inner = Inner()
    settings = AsgiSettings(timeout_s=0.05, concurrent=1)
    app = RingfenceMiddleware(inner, LateGatekeeper(), upstream="service", settings=settings)
    both = await asyncio.gather(call(app, scope_of()), call(app, scope_of()))
    assert [sent[0]["status"] for sent in both] == [504, 429]
    assert inner.scopes == []


async def test_a_certificate_of_the_tls_extension_is_shown() -> None:
    app, _, gatekeeper = middleware()
    pem = "-----BEGIN CERTIFICATE-----\nMAMBAf8=\n-----END CERTIFICATE-----\n"
    await call(app, scope_of(extensions={"tls": {"client_cert_chain": [pem]}}))
    assert gatekeeper.seen[0].channel.thumbprint == hashlib.sha256(bytes.fromhex("30030101ff")).hexdigest()


async def test_starlette_is_guarded() -> None:
    async def page(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.headers[ASSERTION] + (await request.body()).decode())

    gatekeeper = ScriptedGatekeeper()
    app = Starlette(routes=[Route("/decoded", page, methods=["POST"])])
    app.add_middleware(RingfenceMiddleware, gatekeeper=gatekeeper, upstream="service")
    sent = await call(app, scope_of(method="POST"), pieces(b" and ", b"body"))
    assert (sent[0]["status"], sent[1]["body"]) == (200, f"{TOKEN} and body".encode())
    assert (await call(app, scope_of(headers=[(b"x-test", b"deny")])))[0]["status"] == 403


async def test_fastapi_is_guarded() -> None:
    app = FastAPI()

    @app.post("/decoded")
    async def page(request: Request) -> str:
        return request.headers[ASSERTION]

    app.add_middleware(RingfenceMiddleware, gatekeeper=ScriptedGatekeeper(), upstream="service")
    sent = await call(app, scope_of(method="POST"), pieces(b"body"))
    assert (sent[0]["status"], json.loads(sent[1]["body"])) == (200, TOKEN)
    assert (await call(app, scope_of(headers=[(b"x-test", b"full")])))[0]["status"] == 429
