"""The settings of the pages are settings: read as the daemons read their configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from ringfence.config import ConfigError, loader
from ringfence.plugin.hosts.forwardauth.service import ForwardAuthSettings
from ringfence.plugin.hosts.spoe.agent import SpoeSettings
from tests.plugin.hosts.hosts_scene import EXAMPLES


class Daemon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A daemon with both adapters."""

    component: ClassVar[str] = "gateway"
    example: ClassVar[str] = ""
    forward_auth: ForwardAuthSettings | None = None
    spoe: SpoeSettings | None = None

    def open(self) -> Daemon:
        """Nothing is named that needs to be loaded."""
        return self


def parse(text: str) -> Daemon:
    return loader.parse(b'component = "gateway"\n' + text.encode(), Daemon, source="page", folder=Path("/"))


@pytest.mark.parametrize("page", ["nginx", "haproxy"])
def test_the_settings_of_a_page_are_read(page: str) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", (EXAMPLES / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
    daemon = parse(block)
    settings = daemon.forward_auth or daemon.spoe
    assert settings is not None
    assert (settings.socket.peers, settings.socket.mode) in [(("www-data",), 0o660), (("haproxy",), 0o660)]


@pytest.mark.parametrize(
    "line",
    ['hops = ["10.0.0.1/8"]', 'hops = ["proxy"]', "timeout_s = 0", 'exemptions = { exempt = ["x"] }', "other = 1"],
)
def test_settings_that_cannot_be_meant_are_refused(line: str) -> None:
    socket = '[forward_auth.socket]\npath = "/s"\n'
    assert parse(f'[forward_auth]\nhops = ["10.0.0.0/8"]\n{socket}').forward_auth is not None
    with pytest.raises(ConfigError):
        parse(f"[forward_auth]\n{line}\n{socket}")
