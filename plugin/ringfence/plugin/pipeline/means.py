"""What the pipelines decide with: one frozen value that every pipeline of a gateway shares. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ringfence.crypto.handshake import Random
from ringfence.plugin.pipeline.cookies import foreign
from ringfence.plugin.replay import NonceLedger
from ringfence.plugin.risk.port import RiskAssessor
from ringfence.plugin.sessions.port import SessionStore
from ringfence.plugin.threats.port import ThreatDetector
from ringfence.policies import Decider
from ringfence.trust.pins import TrustList


@dataclass(frozen=True, slots=True)
class Known:
    """What a directory says of a principal: seconds since the epoch in `fetched_at`, 0 where there is no directory."""

    groups: tuple[str, ...] = ()
    tenant: str = ""
    attributes: tuple[str, ...] = ()
    fetched_at: int = 0


def no_directory(_principal: str, _now: int) -> Known:
    """A gateway without a directory: groups come from the trust list alone."""
    return Known()


def no_approvals(_principal: str, _now: int) -> int:
    """Nobody approves break-glass access."""
    return 0


def no_regions(_source: str) -> str:
    """No network is configured."""
    return ""


def no_browsers(_method: str, _headers: Sequence[tuple[str, str]]) -> None:
    """A gateway that signs no browsers in has no sessions with a cookie, and takes none."""
    raise foreign()


@dataclass(frozen=True, slots=True)
class Means:
    """The stores, the policies and the looks into the world that the stages need; every one is in memory.

    `ceiling` is the risk (1 to 101) that the gateway itself refuses, whatever the policies say. `directory` and
    `approvals` answer for a principal, `region` for an address, `running` says how many jobs of a principal
    run, and `protect` raises where another site may have caused a browser's request.
    """

    trust: Callable[[], TrustList]
    sessions: SessionStore
    decider: Decider
    replay: NonceLedger
    risk: RiskAssessor
    threats: ThreatDetector
    ceiling: int
    ticks_ns: Callable[[], int]
    random: Random
    directory: Callable[[str, int], Known] = no_directory
    approvals: Callable[[str, int], int] = no_approvals
    region: Callable[[str], str] = no_regions
    running: Callable[[str], int] = lambda _principal: 0
    protect: Callable[[str, Sequence[tuple[str, str]]], None] = no_browsers
