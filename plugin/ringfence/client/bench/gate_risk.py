"""What risk and threat detection cost: each call on the path of a decision, and the memory of many principals."""

from __future__ import annotations

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ringfence.plugin.risk import halfspace, snapshot
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.baseline import Sample
from ringfence.plugin.risk.port import Features
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.threats.detector import Detector
from ringfence.plugin.threats.port import Happened, Sighting
from ringfence.plugin.threats.settings import ThreatSettings

PRINCIPALS: Final = 100_000
CALLS: Final = 100_000
_START = 1_790_326_800
_KNOWN = 1000


def measure(*, principals: int = PRINCIPALS, calls: int = CALLS) -> dict[str, Any]:
    """The figures: microseconds a call, with what reading the timer takes already off, and bytes a principal."""
    settings = RiskSettings(principals=max(principals, 1000))
    timer = statistics.median(_timed(lambda _: None, range(10_000)))
    assessor, now = _known(settings)
    usual = [_asked(number % _KNOWN, now) for number in range(calls)]
    quiet = _timed(assessor.assess, usual[: 40 * _KNOWN])
    # Each principal's first request of a second also lets its counts fade.
    seconds = [_asked(number % _KNOWN, now + 1 + number // _KNOWN) for number in range(min(calls, 40 * _KNOWN))]
    fading = _timed(assessor.assess, seconds)
    now = seconds[-1].now
    strange = [Features(f"p{number}", "192.0.2.1", "Access", 1 << 40, "there", 1, now) for number in range(_KNOWN)]
    unusual = _timed(assessor.assess, strange * 5)
    trees = halfspace.HalfSpaceTrees(random.Random(1).random)  # noqa: S311 - shapes trees, hides nothing
    known = assessor.baseline("p1")
    if known is None:
        raise AssertionError("a principal that was just asked for is not known")
    sample = Sample("SubmitJob", 4096, "here", now)
    places = [halfspace.place(sample, rate / 10, known) for rate in range(2000)]
    looking = _timed(trees.rarity, places)

    detector = Detector(ThreatSettings(principal_per_s=1e6, principal_burst=10_000_000), lambda _: None)
    allowed = [_seen(Happened.ALLOWED, number % _KNOWN, now) for number in range(calls)]
    refused = [_seen(Happened.REFUSED, number % _KNOWN, now) for number in range(10 * _KNOWN)]
    for sighting in allowed[:_KNOWN]:
        detector.see(sighting)
    names = [f"p{number % _KNOWN}" for number in range(calls)]
    standing = _timed(lambda name: detector.standing(source="192.0.2.1", principal=name, now=now), names)
    seeing = _timed(detector.see, allowed)
    refusing = _timed(detector.see, refused)
    return {
        "assess_quiet": _summary(quiet, timer),
        "assess_new_second": _summary(fading, timer),
        "assess_unusual": _summary(unusual, timer),
        "trees_observation": _summary(looking, timer),
        "see_allowed": _summary(seeing, timer),
        "see_refused": _summary(refusing, timer),
        "standing_quiet": _summary(standing, timer),
        "memory": _memory(settings, principals),
    }


def _known(settings: RiskSettings) -> tuple[Assessor, int]:
    """An assessor that knows a thousand principals, and the time."""
    assessor, now = Assessor(settings), _START
    for _ in range(settings.cold_observations + 5):
        for number in range(_KNOWN):
            assessor.assess(_asked(number, now))
        now += settings.learn_every_s
    for number in range(_KNOWN):
        assessor.assess(_asked(number, now))
    return assessor, now


def _memory(settings: RiskSettings, principals: int) -> dict[str, Any]:
    """What so many principals take, how long one of them takes to be saved, and the state's size."""
    gc.collect()
    before = _resident()
    apart = _collection()
    assessor = Assessor(settings)
    started = time.process_time_ns()
    for second in (0, 61):
        for number in range(principals):
            assessor.assess(_asked(number, _START + second))
    filled = time.process_time_ns() - started
    held = _resident() - before
    collected = _collection()
    started = time.process_time_ns()
    entries = list(snapshot.entries(assessor))
    saved = time.process_time_ns() - started
    return {
        "principals": len(assessor),
        "bytes_a_principal": round(held / principals),
        "mib": round(held / 2**20, 1),
        "first_requests_us": round(filled / 2 / principals / 1000, 2),
        "full_collection_ms": round(max(0, collected - apart) / 1e6, 1),
        "encoding_us": round(saved / principals / 1000, 2),
        "state_mib": round(sum(map(len, entries)) / 2**20, 1),
    }


def _collection() -> int:
    """Nanoseconds that a full garbage collection takes."""
    started = time.process_time_ns()
    gc.collect()
    return time.process_time_ns() - started


def _asked(number: int, now: int) -> Features:
    return Features(f"p{number}", "192.0.2.1", "SubmitJob", 4096, "here", 0, now)


def _seen(what: Happened, number: int, now: int) -> Sighting:
    return Sighting(what, "", "192.0.2.1", f"p{number}", "", f"s{number}", "here", now)


def _timed(call: Callable[[Any], object], given: Sequence[object]) -> list[int]:
    """Nanoseconds that each call takes, the timer's own included."""
    clock = time.perf_counter_ns
    taken = []
    for value in given:
        started = clock()
        call(value)
        taken.append(clock() - started)
    return taken


def _summary(taken: Sequence[int], timer: float) -> dict[str, float]:
    ordered = sorted(taken)
    middle, tail = ordered[len(ordered) // 2], ordered[-(-99 * len(ordered) // 100) - 1]
    return {"p50_us": round(max(0.0, middle - timer) / 1000, 2), "p99_us": round(max(0.0, tail - timer) / 1000, 2)}


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")
