"""The real HAProxy with the configuration of docs/hosts/haproxy."""

from __future__ import annotations

import asyncio
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
from tests.plugin.hosts.hosts_programs import Places, haproxy
from tests.plugin.hosts.hosts_scene import (
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
        port, tls_port = free_port(), free_port()
        command = haproxy(Places(folder, port, tls_port, upstream.port, agent.socket))
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
