"""The reasons of a score as people read them and as the audit log records them."""

from __future__ import annotations

import re
from typing import Final

from ringfence.plugin.risk.port import Reason, RiskScore

MAX_RECORDED: Final = 256
_RECORDED = re.compile(r"risk\.(?P<feature>[a-z-]{1,32}) (?P<points>[0-9]{1,3}): (?P<text>.*)", re.DOTALL)

QUIET: Final = RiskScore(0)


def raised(score: RiskScore, points: int) -> RiskScore:
    """`score` and the points that threats add, `Standing.risk` of `ringfence.plugin.threats`."""
    if points <= 0:
        return score
    text = "its source or it itself was seen in a pattern of attack lately"
    return RiskScore(min(100, score.score + points), (*score.reasons, Reason("threats", min(100, points), text)))


def recorded(score: RiskScore) -> tuple[str, ...]:
    """The reasons as an audit record's `reasons`: one text each of at most 256 characters, the weightiest first."""
    ordered = sorted(score.reasons, key=lambda reason: -reason.points)
    return tuple(f"risk.{reason.feature} {reason.points}: {reason.text}"[:MAX_RECORDED] for reason in ordered)


def from_record(text: str) -> Reason | None:
    """The reason that `recorded` wrote, or None where the text is another stage's."""
    said = _RECORDED.fullmatch(text)
    return None if said is None else Reason(said["feature"], int(said["points"]), said["text"])
