"""docs/hosts/envoy.md lists the settings as they are."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from ringfence.plugin.hosts.extauthz.settings import ExtAuthzSettings
from ringfence.plugin.hosts.http2.limits import Http2Limits

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "hosts" / "envoy.md").read_text(encoding="utf-8")


def listed(heading: str) -> dict[str, str]:
    """Name and default of each row of the table under the header row that begins with `heading`."""
    table = PAGE.partition(f"| {heading} | default |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", table, re.MULTILINE))


def declared(settings: type[msgspec.Struct]) -> dict[str, str]:
    shown = {}
    for one in msgspec.structs.fields(settings):
        plain = isinstance(one.default, int | float)
        shown[one.encode_name] = (
            f"{one.default:#o}" if one.name == "socket_mode" else str(one.default) if plain else "\u2013"
        )
    return shown


def test_the_page_lists_the_settings_with_their_defaults() -> None:
    assert listed("setting") == declared(ExtAuthzSettings)


def test_the_page_lists_the_limits_with_their_defaults() -> None:
    assert listed("limit") == declared(Http2Limits)
