"""The programs of docs/hosts are run."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from ringfence import httpsig
from ringfence.plugin.assertion import AssertionIssuer, Subject, published_keys
from ringfence.plugin.hosts.asgi_scope import App
from tests.plugin.hosts.hosts_scene import EXAMPLES, ScriptedGatekeeper
from tests.plugin.hosts.hosts_tls import make_certificates
from tests.plugin.hosts.test_hosts_asgi import call, pieces, scope_of


async def test_the_service_of_the_asgi_page() -> None:
    gatekeeper = ScriptedGatekeeper()
    app: App = runpy.run_path(str(EXAMPLES / "asgi" / "service.py"))["service"](gatekeeper)
    sent = await call(app, scope_of(b"/items", path="/items", method="POST"), pieces(b"body"))
    assert (sent[0]["status"], sent[1]["body"]) == (200, b'"decided"')
    assert (await call(app, scope_of(b"/healthz", path="/healthz")))[0]["status"] == 200
    assert len(gatekeeper.seen) == 1


async def test_the_upstream_of_the_asgi_page(tmp_path: Path) -> None:
    issuer = AssertionIssuer("rf1gateway", bytes(32))
    (tmp_path / "jwks.json").write_bytes(published_keys([issuer.public]))
    module = runpy.run_path(str(EXAMPLES / "asgi" / "upstream.py"))
    app: App = module["upstream"](str(tmp_path / "jwks.json"), "rf1gateway")
    target = httpsig.Target("POST", "h.test", "/items")
    subject = Subject("rf1caller", content_digest=httpsig.content_digest(b"body"))
    token = issuer.issue(target, "service", subject, now=int(time.time()), jti="j" * 16)
    scope = scope_of(b"/items", [(b"x-ringfence-assertion", token.encode())], path="/items", method="POST")
    sent = await call(app, scope, pieces(b"body"))
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"rf1caller sent 4 bytes")


async def test_the_server_of_the_grpc_page(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    certificate, key = (tmp_path / "server.pem").read_bytes(), (tmp_path / "server.key").read_bytes()
    make = runpy.run_path(str(EXAMPLES / "grpc" / "server.py"))["server"]
    gatekeeper = ScriptedGatekeeper()
    server, port = make(gatekeeper, "h.test", key, certificate)

    async def echo(request: bytes, _context: object) -> bytes:
        return request

    handlers: Any = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", handlers),))
    await server.start()
    channel: Any
    async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(certificate)) as channel:
        assert await channel.unary_unary("/t.S/Echo")(b"message") == b"message"
    await server.stop(None)
    assert len(gatekeeper.seen) == 1
