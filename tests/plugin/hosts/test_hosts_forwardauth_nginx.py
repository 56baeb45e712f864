"""The real nginx with the configuration of docs/hosts/nginx."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.plugin.hosts.hosts_contract import HostContract
from tests.plugin.hosts.hosts_plugin import Plugin
from tests.plugin.hosts.hosts_programs import Places, nginx
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


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with short_folder() as folder:
        stage, gatekeeper, upstream = Stage(), ScriptedGatekeeper(), EchoUpstream()
        stage.run(upstream.start())
        plugin = Plugin(stage, gatekeeper, folder)
        plugin.start()
        make_certificates(folder)
        port, tls_port = free_port(), free_port()
        command = nginx(Places(folder, port, tls_port, upstream.port, plugin.socket))
        with program(command, port, folder / "log") as process:
            tls = client_context(folder)
            yield Scene(stage, gatekeeper, upstream, port, plugin.stop, plugin.start, process, folder, tls_port, tls)
        plugin.stop()
        stage.run(upstream.stop())
        stage.close()


class TestNginx(HostContract):
    conflict = 403
    busy = 403
    broken = (500,)

    def reload(self, scene: Scene) -> None:
        scene.process.send_signal(signal.SIGHUP)

    def test_the_real_status_is_in_a_field(self, scene: Scene) -> None:
        reply = scene.ask(request("/", {"X-Test": "replayed"}))
        assert reply.values("x-ringfence-status") == ["409"]
        assert reply.values("x-ringfence-code") == []

    def test_the_question_itself_cannot_be_asked_from_outside(self, scene: Scene) -> None:
        assert scene.ask(request("/_ringfence")).status == 404
        assert scene.gatekeeper.seen == []

    def test_a_client_certificate_reaches_the_gatekeeper(self, scene: Scene) -> None:
        reply = ask(scene.tls_port, request(), scene.tls)
        assert reply.status == 200
        (inbound,) = scene.gatekeeper.seen
        assert inbound.channel.thumbprint == (scene.folder / "client.sha256").read_text()
        assert inbound.channel.certificate.startswith(b"-----BEGIN CERTIFICATE-----")

    def test_a_connection_that_the_plugin_closed_in_between_costs_no_request(self, scene: Scene) -> None:
        assert scene.ask(request()).status == 200
        scene.stop_plugin()
        scene.start_plugin()
        time.sleep(0.05)
        assert [scene.ask(request()).status for _ in range(4)] == [200] * 4
