"""The real HAProxy with the configuration of docs/hosts/haproxy."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.config import SocketPath
from ringfence.plugin.hosts.port import Gatekeeper
from ringfence.plugin.hosts.spoe.agent import SpoeSettings, serve
from ringfence.plugin.hosts.unix_peers import PeerSocket
from tests.plugin.hosts.hosts_contract import HostContract
from tests.plugin.hosts.hosts_plugin import break_off
from tests.plugin.hosts.hosts_scene import (
    EXAMPLES,
    EchoUpstream,
    Scene,
    ScriptedGatekeeper,
    Stage,
    ask,
    free_port,
    program,
    request,
    short_folder,
)
from tests.plugin.hosts.hosts_tls import client_context, make_certificates


class Agent:
    """The SPOE agent at `folder/spoe.sock`, which a test can stop and start again."""

    def __init__(self, stage: Stage, gatekeeper: Gatekeeper, folder: Path) -> None:
        self.socket = folder / "spoe.sock"
        self._stage = stage
        self._gatekeeper = gatekeeper
        self._settings = SpoeSettings(PeerSocket(SocketPath(self.socket)), timeout_s=0.5)
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        self._server = self._stage.run(serve(self._settings, self._gatekeeper))

    def stop(self) -> None:
        assert self._server is not None
        self._stage.run(break_off(self._server))
        self.socket.unlink()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with short_folder() as folder:
        stage, gatekeeper, upstream = Stage(), ScriptedGatekeeper(), EchoUpstream()
        stage.run(upstream.start())
        agent = Agent(stage, gatekeeper, folder)
        agent.start()
        make_certificates(folder)
        server = (folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes()
        (folder / "haproxy.pem").write_bytes(server)
        port, tls_port = free_port(), free_port()
        text = (EXAMPLES / "haproxy" / "haproxy.cfg").read_text()
        root = os.geteuid() == 0
        for example, here in {
            "    user haproxy ": "    user root " if root else "    # ",
            "    group haproxy\n": "    group root\n" if root else "",
            "/run/haproxy/admin.sock": f"{folder}/admin.sock",
            "bind :443": f"bind 127.0.0.1:{tls_port}",
            "127.0.0.1:8081": f"127.0.0.1:{port}",
            "127.0.0.1:8080": f"127.0.0.1:{upstream.port}",
            "/run/ringfence/spoe.sock": str(agent.socket),
            "/etc/haproxy/tls/server.pem": f"{folder}/haproxy.pem",
            "/etc/haproxy/tls/clients.pem": f"{folder}/client.pem",
            "/etc/haproxy/ringfence.conf": f"{EXAMPLES}/haproxy/ringfence.conf",
        }.items():
            assert text.count(example) == 1, example
            text = text.replace(example, here)
        (folder / "haproxy.cfg").write_text(text)
        command = ["haproxy", "-W", "-f", str(folder / "haproxy.cfg")]
        with program(command, port, folder / "log") as process:
            tls = client_context(folder)
            yield Scene(stage, gatekeeper, upstream, port, agent.stop, agent.start, process, folder, tls_port, tls)
        agent.stop()
        stage.run(upstream.stop())
        stage.close()


class TestHaproxy(HostContract):
    broken = (503,)

    def reload(self, scene: Scene) -> None:
        scene.process.send_signal(signal.SIGUSR2)

    def test_a_client_certificate_reaches_the_gatekeeper(self, scene: Scene) -> None:
        assert ask(scene.tls_port, request(), scene.tls).status == 200
        (inbound,) = scene.gatekeeper.seen
        assert inbound.channel.thumbprint == (scene.folder / "client.sha256").read_text()
        assert inbound.channel.certificate[:1] == b"\x30"
