"""What the tests of real hosts share: an upstream that echoes, a scripted gatekeeper, programs, and a raw client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ringfence.plugin.api import PROBLEM
from ringfence.plugin.hosts.port import ASSERTION, Answer, Inbound

TREE = Path(__file__).resolve().parents[3]
EXAMPLES = TREE / "docs" / "hosts"
TOKEN = "the.signed.assertion"
CHALLENGE = 'Signature error="insufficient_user_authentication", acr_values="webauthn"'
Result = TypeVar("Result")


def scripted(inbound: Inbound) -> Answer:
    """The answer that the field `x-test` asks for."""
    script = next((value for name, value in inbound.headers if name == "x-test"), "allow")
    refused = {
        "deny": (403, "policy.denied"),
        "step-up": (401, "identity.factor_missing"),
        "tampered": (401, "integrity.digest_mismatch"),
        "replayed": (409, "integrity.replayed"),
        "full": (429, "gateway.busy"),
    }
    if script == "allow":
        return Answer(200, forward=((ASSERTION, TOKEN),), decision_id="d-1")
    status, code = refused[script]
    headers = [("content-type", PROBLEM)]
    if status == 401:
        headers.append(("www-authenticate", CHALLENGE))
    if status == 429:
        headers.append(("retry-after", "7"))
    return Answer(status, (), tuple(headers), msgspec.json.encode({"code": code, "status": status}), "d-2")


@dataclass
class ScriptedGatekeeper:
    """Answers by `scripted`, after `delay_s`, and keeps what it was shown."""

    seen: list[Inbound] = field(default_factory=list)
    delay_s: float = 0.0

    async def decide(self, inbound: Inbound) -> Answer:
        self.seen.append(inbound)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return scripted(inbound)


class Stage:
    """An event loop in a thread of its own, for servers that a test needs while it waits for answers."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=20)

    def close(self) -> None:
        self.run(self._finish())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _finish(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Received:
    """One request as the upstream got it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for candidate, value in self.headers if candidate == name]


class EchoUpstream:
    """An HTTP/1.1 upstream that keeps each request as it came and answers 200."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *lines = head.rstrip("\r\n").split("\r\n")
                pairs = [one.split(":", 1) for one in lines]
                headers = [(name.lower(), value.strip()) for name, value in pairs]
                request = Received(line, headers, b"")
                request.body = await self._body(request, reader)
                self.received.append(request)
                answer = json.dumps({"line": line}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                await writer.drain()
        writer.close()

    async def _body(self, request: Received, reader: asyncio.StreamReader) -> bytes:
        if request.values("transfer-encoding"):
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
            return body
        return await reader.readexactly(int((request.values("content-length") or ["0"])[0]))


@dataclass
class Reply:
    """What a client got: the status, the fields and the body. Status 0: the connection was closed without an answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for candidate, value in self.headers if candidate == name]


def ask(port: int, raw: bytes, tls: ssl.SSLContext | None = None, timeout_s: float = 10) -> Reply:
    """The answer to the bytes of one request, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as plain:
        connection = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        connection.sendall(raw)
        got = b""
        with contextlib.suppress(ConnectionError):
            while not _complete(got):
                piece = connection.recv(65536)
                if not piece:
                    break
                got += piece
        if tls:
            connection.close()
    return read_reply(got)


def _complete(got: bytes) -> bool:
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return got.endswith(b"0\r\n\r\n") or head.split(b" ")[1] in (b"204", b"304")


def read_reply(got: bytes) -> Reply:
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return Reply(0, [], b"")
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, value in (one.split(":", 1) for one in lines)]
    return Reply(int(line.split(" ")[1]), headers, body)


def request(
    target: str = "/",
    fields: dict[str, str] | None = None,
    method: str = "GET",
    body: bytes = b"",
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: h.test", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="rf-host-") as made:
        yield Path(made)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def program(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real host, listening at `port`; killed at the end."""
    found = shutil.which(command[0], path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
    assert found is not None, f"{command[0]} is not installed: run `make setup`"
    with log.open("wb") as output:
        process = subprocess.Popen([found, *command[1:]], stdout=output, stderr=output)
    try:
        wait_until(lambda: listening(port) or process.poll() is not None, "the host does not listen")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Scene:
    """A running host between a client and an upstream, with the gatekeeper that it asks."""

    stage: Stage
    gatekeeper: ScriptedGatekeeper
    upstream: EchoUpstream
    port: int
    stop_plugin: Callable[[], None]
    start_plugin: Callable[[], None]
    process: subprocess.Popen[bytes]
    folder: Path
    tls_port: int = 0
    tls: ssl.SSLContext | None = None

    def ask(self, raw: bytes, timeout_s: float = 10) -> Reply:
        return ask(self.port, raw, timeout_s=timeout_s)

    def forget(self) -> None:
        self.gatekeeper.seen.clear()
        self.gatekeeper.delay_s = 0.0
        self.upstream.received.clear()
