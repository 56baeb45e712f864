"""The real hosts before the real gateway: an upstream that checks what is asserted, and callers with sessions."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from ringfence import httpsig, trust
from ringfence.client.client import Client, Session
from ringfence.client.local import LocalInstallation
from ringfence.plugin.assertion import KEYS_PATH, Claims
from ringfence.plugin.upstream.asgi import CLAIMS, AssertedMiddleware
from ringfence.plugin.upstream.desk import UpstreamSettings
from ringfence.trust import Pin, Role, TrustList
from ringfence.trust.store import quoted
from tests.plugin.hosts.envoy_certificates import Authority
from tests.plugin.hosts.envoy_running import configuration, envoy_process
from tests.plugin.hosts.hosts_programs import Places, caddy, haproxy, nginx
from tests.plugin.hosts.hosts_scene import Reply, Stage, ask, free_port, listening, program, request, wait_until
from tests.plugin.hosts.hosts_tls import make_certificates

AUTHORITY = "h.test"
GROUPS = ("clients", "service-users")
POLICY = """\
@id("forbid-admin-without-key")
@description("What is under /admin asks for a security key.")
@step_up("webauthn")
forbid (principal, action == Ringfence::Action::"Access", resource)
when { context.path like "/admin/*" }
unless { context.factors.contains("webauthn") };
"""
MANIFEST = """\
name = "guarded"
version = {version}
description = "The shipped policies, and a security key for what is under /admin."
extends = "default"
"""
TABLES = """
[upstreams.service]
verifies_body = false

[hosts.forward_auth.socket]
path = {forward_auth}

[hosts.authzen]

[hosts.spoe.socket]
path = {spoe}

[hosts.ext_authz]
socket = {ext_authz}
users = [{user}]
upstreams = ["service"]

[policy]
reload_s = 1

[sessions]
snapshot_s = 1

[sockets]
admin = {admin}
feed = {feed}

[risk]                 # refusals are what these tests ask for, and are to be refused for their own reasons
refusal_points = 1
source_points = 0

[threats]
refusals = {{count = 1000, within_s = 60}}
replays = {{count = 1000, within_s = 60}}
step_ups = {{count = 1000, within_s = 60}}
"""


@dataclass(frozen=True)
class Arrival:
    """A request as it arrived at the upstream; `claims` where its assertion and its body hold."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    claims: list[Claims] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]


class Upstream:
    """A service that acts on nothing that was not asserted to it: 200 for what was, and a log of all that arrived."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self.arrivals: list[Arrival] = []
        self._guarded = AssertedMiddleware(self._act, settings)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        served = uvicorn.Config(self._record, interface="asgi3", lifespan="off", log_config=None, proxy_headers=False)
        self._server = uvicorn.Server(served)
        self._served: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._served = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        self._server.handle_exit(signal.SIGTERM, None)
        assert self._served is not None
        await self._served

    async def _record(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        arrival = Arrival(scope["method"], (scope["raw_path"] + query).decode("latin-1"), headers)
        self.arrivals.append(arrival)
        await self._guarded({**scope, "arrival": arrival}, receive, send)

    async def _act(self, scope: Any, _receive: Any, send: Any) -> None:
        scope["arrival"].claims.append(scope[CLAIMS])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@dataclass(frozen=True)
class Door:
    """One host's address, how it refuses, and whose session goes through it."""

    name: str
    port: int
    broken: int
    conflict: int
    shows_bodies: bool
    client: Client
    tls: ssl.SSLContext | None = None

    def send(
        self, target: str, fields: Mapping[str, str] | None = None, method: str = "GET", body: bytes = b""
    ) -> Reply:
        """The answer to one request, on a connection of its own."""
        return ask(self.port, request(target, dict(fields or {}), method, body), self.tls)


def signed(session: Session, target: str, method: str = "GET", body: bytes = b"") -> dict[str, str]:
    """The fields that sign a request."""
    path, mark, query = target.partition("?")
    return session.sign(httpsig.Target(method, AUTHORITY, path, f"?{query}" if mark else "?"), body)


def configure(local: LocalInstallation, names: Sequence[str]) -> None:
    """Gives a fresh installation policies of its own, clients called `names`, and doors; its gateway starts again."""
    folder = local.state / "policies"
    (folder / "policies").mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST.format(version=1))
    (folder / "policies" / "admin.cedar").write_text(POLICY)
    now = int(time.time())
    pins = [Pin("agent", Role.AGENT, local.keys["agent"].public, now)]
    for name in names:
        local.keys[name] = trust.generate(local.state / "keys", name)
        pins.append(Pin(name, Role.CLIENT, local.keys[name].public, now, GROUPS))
    trust.save(local.state / "gateway-trust.toml", TrustList(tuple(pins)))
    path = local.state / "gateway.toml"
    text = path.read_text()
    assert text.count('policies = "default"') == 1
    text = text.replace('policies = "default"', 'policies = "./policies"')
    doors = {name: quoted(str(local.socket(name))) for name in ("forward_auth", "spoe", "ext_authz", "admin", "feed")}
    path.write_text(text + TABLES.format(**doors, user=os.geteuid()))
    restart(local)


def restart(local: LocalInstallation, number: int = signal.SIGTERM) -> None:
    """Ends the gateway by a signal, and starts it again."""
    end(local, number)
    local.start("gateway")


def end(local: LocalInstallation, number: int) -> None:
    """Ends the gateway by a signal."""
    process = local.process("gateway")
    process.send_signal(number)
    process.wait(20)


def get(path: Path, target: str, question: object = None) -> tuple[int, bytes]:
    """The status and the body of a GET over a Unix socket, or of a POST of a `question` in JSON."""
    connection = http.client.HTTPConnection("localhost")
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.connect(str(path))
        if question is None:
            connection.request("GET", target)
        else:
            connection.request("POST", target, json.dumps(question), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


@dataclass(frozen=True)
class Front:
    """The gateway, its upstream, and the hosts between them by name."""

    local: LocalInstallation
    upstream: Upstream
    doors: Mapping[str, Door]


@contextlib.contextmanager
def front(
    local: LocalInstallation, folder: Path, names: Sequence[str], *, others: Sequence[str] = ()
) -> Iterator[Front]:
    """The hosts called `names` before the gateway of a fresh installation, each with a client of its own.

    `others` are clients beside them.
    """
    configure(local, (*names, *others))
    status, keys = get(local.socket("gateway"), KEYS_PATH)
    assert (status, get(local.socket("forward_auth"), KEYS_PATH)) == (200, (200, keys))
    (folder / "keys.json").write_bytes(keys)
    upstream = Upstream(UpstreamSettings("service", local.keys["gateway"].key_id, str(folder / "keys.json")))
    stage = Stage()
    stage.run(upstream.start())
    with contextlib.ExitStack() as running:
        doors = {name: running.enter_context(_DOORS[name](local, folder / name, upstream.port)) for name in names}
        yield Front(local, upstream, doors)
    stage.run(upstream.stop())
    stage.close()


@contextlib.contextmanager
def _nginx(local: LocalInstallation, folder: Path, upstream: int) -> Iterator[Door]:
    places = _places(folder, upstream, local.socket("forward_auth"))
    with program(nginx(places), places.port, folder / "log"):
        yield Door("nginx", places.port, 500, 403, False, local.client("nginx"))


@contextlib.contextmanager
def _caddy(local: LocalInstallation, folder: Path, upstream: int) -> Iterator[Door]:
    places = _places(folder, upstream, local.socket("forward_auth"))
    with program(caddy(places), places.port, folder / "log"):
        yield Door("caddy", places.port, 502, 409, False, local.client("caddy"))


@contextlib.contextmanager
def _haproxy(local: LocalInstallation, folder: Path, upstream: int) -> Iterator[Door]:
    places = _places(folder, upstream, local.socket("spoe"))
    with program(haproxy(places), places.port, folder / "log"):
        yield Door("haproxy", places.port, 503, 409, False, local.client("haproxy"))


@contextlib.contextmanager
def _envoy(local: LocalInstallation, folder: Path, upstream: int) -> Iterator[Door]:
    folder.mkdir()
    authority = Authority(folder)
    authority.issue("server", "localhost")
    port = free_port()
    text = configuration(folder, port, upstream)
    for there, here in (
        (str(folder / "check.sock"), str(local.socket("ext_authz"))),
        ("ringfence_upstream: upstream", "ringfence_upstream: service"),
    ):
        assert text.count(there) == 1, there
        text = text.replace(there, here)
    with envoy_process(folder, text):
        wait_until(lambda: listening(port), "Envoy does not listen", 30.0)
        tls = ssl.create_default_context(cafile=str(folder / "clients.pem"))
        yield Door("envoy", port, 503, 409, True, local.client("envoy"), tls)


def _places(folder: Path, upstream: int, asked: Path) -> Places:
    folder.mkdir()
    make_certificates(folder)
    return Places(folder, free_port(), free_port(), upstream, asked)


_DOORS = {"nginx": _nginx, "haproxy": _haproxy, "caddy": _caddy, "envoy": _envoy}
