"""Error codes of risk: its networks file, its signed state and its offline commands."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class RiskError(RingfenceError):
    """Something that risk learns from, or has learned, cannot be used."""


NETWORKS_MALFORMED = Code("risk.networks_malformed", Kind.INVALID)
STATE_MALFORMED = Code("risk.state_malformed", Kind.INVALID)
STATE_FORGED = Code("risk.state_forged", Kind.DENIED)
STATE_VERSION = Code("risk.state_version", Kind.INVALID)
STATE_ROLLED_BACK = Code("risk.state_rolled_back", Kind.DENIED)
STATE_UNREADABLE = Code("risk.state_unreadable", Kind.UNAVAILABLE)
STATE_UNWRITABLE = Code("risk.state_unwritable", Kind.UNAVAILABLE)
NOTHING_RECORDED = Code("risk.nothing_recorded", Kind.NOT_FOUND)
TOO_FEW_DECISIONS = Code("risk.too_few_decisions", Kind.UNPROCESSABLE)
