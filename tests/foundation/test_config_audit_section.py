"""The `[audit]` table of both daemons: its defaults are the log's, its bounds hold, an error names its line."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence.agent.api.jobs import MAX_JOB_LIFETIME_S
from ringfence.audit import Settings
from ringfence.config import ConfigError, effective, parse
from ringfence.config.audit_section import KEEP_AT_LEAST_S, AuditSettings, SecretFile
from ringfence.config.cli import component, components
from ringfence.trust import TrustError

FOLDER = Path("/etc/ringfence")
COMPONENTS = sorted(components())


def read(name: str, old: str = "", new: str = "") -> Any:
    """A component's example with one line of it replaced."""
    kind = component(name)
    assert old in kind.example
    return parse(kind.example.replace(old, new, 1).encode(), kind, source="it.toml", folder=FOLDER)


def test_the_defaults_are_those_of_a_log() -> None:
    plain, said = Settings(), AuditSettings().log_settings()
    differing = {one.name for one in fields(plain) if getattr(plain, one.name) != getattr(said, one.name)}
    assert differing == {"keep_at_least_s"}


def test_what_an_agent_must_remember_is_never_removed() -> None:
    # A job's statement may be replayed while it is valid: for its lifetime, begun half a minute ahead of this clock.
    assert AuditSettings(keep_bytes=1).log_settings().keep_at_least_s == KEEP_AT_LEAST_S > 2 * MAX_JOB_LIFETIME_S


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_file_without_the_table_has_the_defaults(name: str) -> None:
    kind = component(name)
    before, _, rest = kind.example.partition("[audit]")
    without = before + "[limits]" + rest.partition("[limits]")[2]
    value: Any = parse(without.encode(), kind, source="it.toml", folder=FOLDER)
    assert value.audit == AuditSettings()


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("checkpoint_every_s = 0.25", "checkpoint_every_s = 0.009"),
        ("checkpoint_every_s = 0.25", "checkpoint_every_s = 61"),
        ("checkpoint_every_s = 0.25", "checkpoint_every_s = nan"),
        ("checkpoint_every_s = 0.25", 'checkpoint_every_s = "often"'),
        ("segment_bytes = 67108864", "segment_bytes = 65535"),
        ("segment_bytes = 67108864", "segment_bytes = 1073741825"),
        ("segment_bytes = 67108864", "segment_bytes = 1e6"),
        ("segment_age_s = 86400", "segment_age_s = 59"),
        ("segment_age_s = 86400", "segment_age_s = 31622401"),
        ("keep_bytes = 0", "keep_bytes = -1"),
        ("keep_bytes = 0", "keep_bytes = 1125899906842625"),
        ("keep_age_s = 0", "keep_age_s = -1"),
        ("keep_age_s = 0", "keep_age_s = 3162240001"),
        ('second_key = "none"', "second_key = 5"),
        ('second_key = "none"', 'second_key = ""'),
        ('second_key = "none"', 'second_key = "a\\u0000b"'),
        ("second_every_s = 60.0", "second_every_s = 0.9"),
        ("second_every_s = 60.0", "second_every_s = inf"),
        ("second_every_s = 60.0", "second_every_s = 86401"),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_its_line(name: str, line: str, said: str) -> None:
    number = component(name).example[: component(name).example.index(line)].count("\n") + 1
    with pytest.raises(ConfigError) as caught:
        read(name, line, said)
    assert caught.value.code.name == "config.bad_value"
    assert (caught.value.field, caught.value.line) == (f"audit.{said.split()[0]}", number)


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("key", ["keep_at_least_s", "fsync_every_s", "signer"])
def test_an_unknown_key_is_refused_with_its_line(name: str, key: str) -> None:
    number = component(name).example[: component(name).example.index("keep_bytes")].count("\n") + 1
    with pytest.raises(ConfigError) as caught:
        read(name, "keep_bytes = 0", f"{key} = 0")
    assert caught.value.code.name == "config.unknown_key"
    assert (caught.value.field, caught.value.line) == (f"audit.{key}", number)


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("none", "none"),
        ("./none", "/etc/ringfence/none"),
        ("keys/audit.1.key", "/etc/ringfence/keys/audit.1.key"),
        ("/srv/audit.1.key", "/srv/audit.1.key"),
    ],
)
def test_the_second_key_is_resolved_and_shown_so(name: str, written: str, means: str) -> None:
    value = read(name, 'second_key = "none"', f'second_key = "{written}"')
    assert value.audit.second_key.path == (None if written == "none" else Path(means))
    shown: Any = effective(value)
    assert shown["audit"]["second_key"] == means


def test_the_page_has_every_key_with_its_default_and_its_bounds() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    table = page.partition("| key | default | from | to | what it is |\n|---|---|---|---|---|\n")[2]
    rows = [row.strip("|").split("|") for row in table.partition("\n\n")[0].splitlines()]
    keys = []
    for key, default, low, high, _ in ([cell.strip(" `") for cell in row] for row in rows):
        keys.append(key)
        assert str(getattr(AuditSettings(), key)) == default
        for bound, beyond in ((low, -1), (high, 1)):
            if bound:
                msgspec.convert({key: json.loads(bound)}, AuditSettings)
                with pytest.raises(msgspec.ValidationError):
                    msgspec.convert({key: json.loads(bound) + beyond}, AuditSettings)
    assert keys == list(AuditSettings.__struct_fields__)


@pytest.mark.parametrize("name", ["agent", "gateway"])
def test_a_missing_anchor_is_found_before_the_daemon_starts(name: str, tmp_path: Path) -> None:
    settings = AuditSettings(anchor=SecretFile(str(tmp_path / "nowhere.toml")))
    configuration = msgspec.structs.replace(read(name, "keep_bytes = 0", "keep_bytes = 0"), audit=settings)
    with pytest.raises(TrustError) as caught:
        configuration.open()
    assert caught.value.code.name == "trust.missing_file"
    assert "nowhere.toml" in caught.value.message
