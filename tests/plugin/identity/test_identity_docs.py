"""The settings on the page about identity are settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from ringfence.config import convert
from ringfence.plugin.config_tables import EndorsementSettings
from ringfence.plugin.identity import directory_file
from ringfence.plugin.identity.factors import BUILT_IN
from ringfence.plugin.identity.settings import IdentitySettings
from ringfence.plugin.signin.settings import SignInSettings

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "identity.md").read_text(encoding="utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def read(text: str, table: str, kind: type[msgspec.Struct]) -> Any:
    return convert(tomllib.loads(text)[table], text, kind, source="identity.md", folder=Path("/etc/ringfence"))


def test_every_example_of_settings_is_taken() -> None:
    everything, directory, scim, endorsements, signin = TOML
    settings = read(everything, "identity", IdentitySettings)
    assert all(getattr(settings, name) is not None for name in (*BUILT_IN, "directory", "approvals"))
    assert read(scim, "identity", IdentitySettings).directory.principal == "userName"
    assert read(signin, "sign_in", SignInSettings).redirect_uri == "https://console.example/.ringfence/callback"
    assert read(endorsements, "endorsements", EndorsementSettings).group == "module-signers"
    assert directory_file.parse(directory.encode(), "directory.toml", now=1).entries["alice"][0] == "physics"


def test_the_table_names_the_built_in_factors() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == BUILT_IN
