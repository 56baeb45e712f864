"""An upstream behind a gateway: nothing reaches its application that was not asserted, body included."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ringfence import httpsig
from ringfence.plugin.assertion import AssertionIssuer, Subject, published_keys
from ringfence.plugin.hosts.asgi_scope import Message
from ringfence.plugin.upstream.asgi import CLAIMS, AssertedMiddleware
from ringfence.plugin.upstream.desk import UpstreamSettings
from ringfence.plugin.upstream.errors import UpstreamError

NOW = 1_790_000_000
ISSUER, NEXT = AssertionIssuer("rf1gateway", bytes(32)), AssertionIssuer("rf1gateway", bytes(range(32)))
TARGET = httpsig.Target("POST", "h.test", "/a%20b", "?c=d")
LARGE = bytes(range(256)) * 4096


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Service:
    """An application that reads its whole body, behind the middleware."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.keys = folder / "jwks.json"
        self.keys.write_bytes(published_keys([ISSUER.public]))
        self.clock = Clock()
        self.scopes: list[Message] = []
        self.bodies: list[bytes] = []
        self.app = AssertedMiddleware(
            self._inner,
            UpstreamSettings("service", "rf1gateway", str(self.keys), **settings),
            clock=self.clock,
        )

    async def _inner(self, scope: Message, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def call(self, tokens: Iterable[str], parts: Iterable[bytes | None] = (b"",), **more: Any) -> tuple[int, str]:
        """The status and code; None among the parts: the client goes away, and the last one ends the body."""
        waiting = list(parts)
        sent: list[Message] = []

        async def receive() -> Message:
            if not waiting:
                await asyncio.sleep(60)
            part = waiting.pop(0)
            if part is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(waiting)}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/a b",
            "raw_path": b"/a%20b",
            "query_string": b"c=d",
            "headers": [(b"host", b"h.test"), *((b"x-ringfence-assertion", one.encode()) for one in tokens)],
            **more,
        }
        await self.app(scope, receive, send)
        if not sent:
            return 0, ""
        body = sent[1]["body"]
        return sent[0]["status"], json.loads(body)["code"] if body else ""


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path, memory_bytes=1000, body_bytes=2**21, body_timeout_s=0.2)


def token(body: bytes = b"", number: int = 0, issuer: AssertionIssuer = ISSUER, now: int = NOW) -> str:
    digest = httpsig.content_digest(body) if body else ""
    subject = Subject("rf1caller", content_digest=digest)
    return issuer.issue(TARGET, "service", subject, now=now, jti=f"{number:022}")


async def test_an_asserted_request_reaches_the_application_with_its_claims(service: Service) -> None:
    assert await service.call([token(b"onetwo")], [b"one", b"", b"two"]) == (200, "")
    assert service.bodies == [b"onetwo"]
    assert service.scopes[0][CLAIMS].sub == "rf1caller"


async def test_a_body_beyond_memory_is_held_in_a_file_and_given_whole(service: Service) -> None:
    parts = [LARGE[start : start + 70_000] for start in range(0, len(LARGE), 70_000)]
    assert await service.call([token(LARGE)], parts) == (200, "")
    assert service.bodies == [LARGE]


@pytest.mark.parametrize("parts", [[b"onetwo!"], [b"onetw"], [b""], [b"twoone"], [LARGE], [b"one", b"two", b"\0"]])
async def test_a_body_that_was_not_signed_is_never_seen(service: Service, parts: list[bytes]) -> None:
    assert await service.call([token(b"onetwo")], parts) == (401, "assertion.body_mismatch")
    assert service.scopes == []


async def test_a_body_without_a_digest_is_refused(service: Service) -> None:
    assert await service.call([token()], [b"x"]) == (401, "assertion.body_mismatch")
    assert await service.call([token(number=1)]) == (200, "")


async def test_a_truncated_body_is_never_verified(service: Service) -> None:
    assert await service.call([token(b"one")], [b"one", None]) == (0, "")
    assert service.scopes == []


async def test_slow_and_endless_bodies_are_refused(service: Service) -> None:
    async def never() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.request", "body": b"", "more_body": False}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"h.test"), (b"x-ringfence-assertion", token(b"one").encode())]
    scope = {"type": "http", "method": "POST", "raw_path": b"/a%20b", "query_string": b"c=d", "headers": headers}
    await service.app(scope, never, send)
    assert (sent[0]["status"], service.scopes) == (504, [])
    assert await service.call([token(LARGE, 1)], [LARGE] * 3) == (413, "assertion.body_too_large")


async def test_what_did_not_come_through_the_gateway_is_refused(service: Service) -> None:
    assert await service.call([]) == (401, "assertion.missing")
    assert await service.call([token(), token(number=1)]) == (401, "assertion.missing")
    assert await service.call([token(number=2, issuer=NEXT)]) == (401, "assertion.key_unknown")
    assert await service.call([token(number=3)], method="PUT") == (403, "assertion.wrong_target")
    assert await service.call([token(number=4)], raw_path=b"/a%20c") == (403, "assertion.wrong_target")
    assert await service.call([token(number=5)], raw_path=None) == (400, "hosts.target_malformed")
    assert service.scopes == []


async def test_an_assertion_is_used_once_while_it_lives(service: Service) -> None:
    assert await service.call([token()]) == (200, "")
    assert await service.call([token()]) == (409, "assertion.replayed")
    service.clock.now += 64
    assert await service.call([token()]) == (409, "assertion.replayed")
    service.clock.now += 1
    assert await service.call([token()]) == (401, "assertion.expired")


async def test_keys_are_read_again_when_they_change(service: Service) -> None:
    assert await service.call([token(issuer=NEXT)]) == (401, "assertion.key_unknown")
    service.keys.write_bytes(b"half a fi")
    os.utime(service.keys, ns=(1, 1))
    service.clock.now += 5
    assert await service.call([token(number=1)]) == (200, "")
    service.keys.write_bytes(published_keys([ISSUER.public, NEXT.public]))
    os.utime(service.keys, ns=(2, 2))
    assert await service.call([token(number=2, issuer=NEXT)]) == (401, "assertion.key_unknown")
    service.clock.now += 5
    assert await service.call([token(number=3, issuer=NEXT)]) == (200, "")
    assert await service.call([token(number=4)]) == (200, "")


async def test_websockets_are_refused_and_lifespan_passes(service: Service) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await service.app({"type": "websocket"}, receive, send)
    await service.app({"type": "lifespan"}, receive, send)
    assert [one["type"] for one in sent] == ["websocket.close"]
    assert [scope["type"] for scope in service.scopes] == ["lifespan"]


def test_an_upstream_without_keys_does_not_start(tmp_path: Path) -> None:
    for keys in (tmp_path / "absent", tmp_path):
        with pytest.raises(UpstreamError):
            AssertedMiddleware(Service(tmp_path).app, UpstreamSettings("s", "g", str(keys)))
