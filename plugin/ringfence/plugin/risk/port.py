"""The port of risk: typed features of a request in, an explained score out. Pure."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Features(msgspec.Struct, frozen=True, gc=False):
    """One authenticated request as risk sees it.

    `action` is the policy action's id; `size` the body's bytes (-1: unknown); `region` what the configured networks
    call the source's address, "" for none; `device_drift` how many of the session's device facts have changed since it
    was opened.
    """

    principal: str
    source: str
    action: str
    size: int
    region: str
    device_drift: int
    now: int


class Reason(msgspec.Struct, frozen=True, gc=False):
    """Why a score is as high as it is: a feature's name, the points that it adds, and what was unusual, for people."""

    feature: str
    points: int
    text: str


class RiskScore(msgspec.Struct, frozen=True, gc=False):
    """0 (nothing unusual) to 100. The points of `reasons` add up to at least the score."""

    score: int
    reasons: tuple[Reason, ...] = ()


class RiskAssessor(Protocol):
    """Scores requests. In memory, without waiting: it stands on the path of every decision."""

    def assess(self, features: Features) -> RiskScore:
        """The score of a request; it learns from it."""
        ...

    def refused(self, subject: str, *, authenticated: bool, now: int) -> None:
        """A request was refused for what its caller did.

        `subject` is a principal where `authenticated`, else a source: what is not authenticated never counts against
        the principal that it claims to be.
        """
        ...

    def requests_minute(self, principal: str, *, now: int) -> int:
        """How many requests of the principal were assessed within the last minute, about."""
        ...
