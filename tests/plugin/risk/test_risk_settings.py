"""The settings: what the page says, what the example says, and what is in force are the same."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from ringfence.config import convert, tables
from ringfence.plugin.device import settings as device
from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.risk import settings as risk
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.threats import settings as threats
from ringfence.plugin.threats.settings import Rule, ThreatSettings

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "risk.md").read_text(encoding="utf-8")
TABLES: dict[str, tuple[type[msgspec.Struct], ModuleType]] = {
    "risk": (RiskSettings, risk),
    "threats": (ThreatSettings, threats),
    "device": (DeviceSettings, device),
}


def shown(value: object) -> str:
    if isinstance(value, Rule):
        return f"{value.count} in {value.within_s} s: {value.reaction}"
    return "none" if value == () else str(value)


@pytest.mark.parametrize("name", TABLES)
def test_the_page_lists_every_setting_with_its_default(name: str) -> None:
    kind, _ = TABLES[name]
    defaults: Any = kind()
    section = PAGE.partition(f"\n`[{name}]`")[2].partition("\n`[")[0]
    listed = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)
    assert listed == [(field.name, shown(getattr(defaults, field.name))) for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize("name", TABLES)
def test_the_example_loads_and_says_the_defaults(name: str) -> None:
    kind, module = TABLES[name]
    values, text = tables(module.EXAMPLE.encode(), "example")
    assert convert(values[name], text, kind, source="example", folder=Path()) == kind()


def test_the_page_lists_every_reason_and_pattern() -> None:
    from ringfence.plugin.threats.events import Pattern

    source = (Path(risk.__file__).parent / "assessor.py").read_text(encoding="utf-8")
    reasons = set(re.findall(r'Reason\(\s*"([a-z-]+)"|_add\(reasons, "([a-z-]+)"', source))
    named = {first or second for first, second in reasons}
    listed = PAGE.partition("| reason |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)`", listed, re.MULTILINE)) == named
    patterns = PAGE.partition("| pattern |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)`", patterns, re.MULTILINE) == [pattern.value for pattern in Pattern]
