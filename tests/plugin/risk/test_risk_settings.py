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
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.reasons import raised
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.threats import settings as threats
from ringfence.plugin.threats.detector import Detector
from ringfence.plugin.threats.events import Pattern
from ringfence.plugin.threats.port import Happened, Sighting
from ringfence.plugin.threats.settings import Rule, ThreatSettings
from tests.plugin.risk.risk_bench import USUAL

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


def test_strangers_never_lift_a_newcomer_beside_them_to_what_the_shipped_policies_refuse() -> None:
    assessor = Assessor(RiskSettings(source_points=49, cold_points=10))
    detector = Detector(ThreatSettings(source_points=10, threat_points=60), lambda _: None)
    stranger = Sighting(Happened.BAD_CREDENTIAL, "x", USUAL.source, "", "alice", "", "", USUAL.now)
    for _ in range(200):
        assessor.refused(USUAL.source, authenticated=False, now=USUAL.now)
        detector.see(stranger)
    standing = detector.standing(source=USUAL.source, principal="alice", now=USUAL.now)
    assert raised(assessor.assess(USUAL), standing.risk).score == 69


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(RiskSettings, "source_points", 50), (RiskSettings, "cold_points", 11), (ThreatSettings, "source_points", 11)],
)
def test_no_setting_gives_strangers_more(kind: type[msgspec.Struct], name: str, value: int) -> None:
    msgspec.convert({name: value - 1}, kind)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({name: value}, kind)


def test_the_page_lists_every_reason_and_pattern() -> None:
    source = (Path(risk.__file__).parent / "assessor.py").read_text(encoding="utf-8")
    reasons = set(re.findall(r'Reason\(\s*"([a-z-]+)"|_add\(reasons, "([a-z-]+)"', source))
    named = {first or second for first, second in reasons}
    listed = PAGE.partition("| reason |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)`", listed, re.MULTILINE)) == named | {"threats"}
    patterns = PAGE.partition("| pattern |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)`", patterns, re.MULTILINE) == [pattern.value for pattern in Pattern]
