"""Principals with a past, for the tests of risk."""

from __future__ import annotations

from msgspec.structs import replace

from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.port import Features, RiskAssessor, RiskScore
from ringfence.plugin.risk.settings import RiskSettings

SETTINGS = RiskSettings()
# A Friday, 09:00 UTC.
NOW = 1_790_326_800
USUAL = Features("alice", "192.0.2.1", "SubmitJob", 4096, "office", 0, NOW)


def port(settings: RiskSettings = SETTINGS) -> RiskAssessor:
    """An assessor as the pipelines see it."""
    return Assessor(settings)


def known(
    settings: RiskSettings = SETTINGS, *, observations: int = 40, principal: str = "alice"
) -> tuple[Assessor, int]:
    """An assessor that knows `principal` from one usual request a minute, and the time of the next one."""
    assessor = Assessor(settings)
    now = NOW
    for _ in range(observations + 1):
        assessor.assess(replace(USUAL, principal=principal, now=now))
        now += settings.learn_every_s
    return assessor, now


def features_of(score: RiskScore) -> dict[str, int]:
    """The points of a score by feature."""
    return {reason.feature: reason.points for reason in score.reasons}
