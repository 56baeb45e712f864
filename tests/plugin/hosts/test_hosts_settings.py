"""The settings of the pages are settings: read as the daemons read their configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from ringfence.config import ConfigError, loader
from ringfence.plugin.config_tables import HostsSettings, UpstreamName, UpstreamSettings
from tests.plugin.hosts.hosts_scene import EXAMPLES


class Daemon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A daemon with the tables of the gateway's configuration that the pages show."""

    component: ClassVar[str] = "gateway"
    example: ClassVar[str] = ""
    upstreams: dict[UpstreamName, UpstreamSettings] = {}
    hosts: HostsSettings = HostsSettings()

    def open(self) -> Daemon:
        """Nothing is named that needs to be loaded."""
        return self


def parse(text: str) -> Daemon:
    return loader.parse(b'component = "gateway"\n' + text.encode(), Daemon, source="page", folder=Path("/"))


@pytest.mark.parametrize("page", ["nginx", "haproxy"])
def test_the_settings_of_a_page_are_read(page: str) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", (EXAMPLES / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
    daemon = parse(block)
    settings = daemon.hosts.forward_auth or daemon.hosts.spoe
    assert settings is not None
    assert list(daemon.upstreams) == ["service"]
    assert (settings.socket.peers, settings.socket.mode) in [(("www-data",), 0o660), (("haproxy",), 0o660)]


@pytest.mark.parametrize(
    "line",
    ['hops = ["10.0.0.1/8"]', 'hops = ["proxy"]', "timeout_s = 0", 'exemptions = { exempt = ["x"] }', "other = 1"],
)
def test_settings_that_cannot_be_meant_are_refused(line: str) -> None:
    socket = '[hosts.forward_auth.socket]\npath = "/s"\n'
    assert parse(f'[hosts.forward_auth]\nhops = ["10.0.0.0/8"]\n{socket}').hosts.forward_auth is not None
    with pytest.raises(ConfigError):
        parse(f"[hosts.forward_auth]\n{line}\n{socket}")


def test_the_settings_of_envoys_page_are_read() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", (EXAMPLES / "envoy.md").read_text(), re.DOTALL | re.MULTILINE)
    daemon = parse(block)
    assert daemon.hosts.ext_authz is not None
    assert list(daemon.hosts.ext_authz.upstreams) == list(daemon.upstreams)


def test_authzen_needs_the_socket_that_it_is_served_on() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", (EXAMPLES / "authzen.md").read_text(), re.DOTALL | re.MULTILINE)
    assert parse(f'{block}[hosts.forward_auth.socket]\npath = "/s"\n').hosts.authzen is not None
    with pytest.raises(ConfigError, match="forward_auth"):
        parse(block)
