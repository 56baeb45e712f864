"""The settings of sessions: unknown names and values out of range are refused."""

from __future__ import annotations

import msgspec
import pytest

from ringfence.plugin.sessions.settings import SessionSettings


def test_the_defaults_are_those_of_the_page() -> None:
    assert SessionSettings() == SessionSettings(10_000, 900, 300, 900, 60, 100_000)


@pytest.mark.parametrize("bad", [{"capacity": 0}, {"capacity": 1_000_001}, {"idle_s": 0}, {"snapshot_s": -1}, {"x": 1}])
def test_what_cannot_be_meant_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, SessionSettings)
