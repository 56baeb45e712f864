"""The oracle looks over the compiled engine's shoulder, and takes over when they disagree."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from random import Random

import msgspec
import pytest

from ringfence.policies.bundle import Bundle
from ringfence.policies.cases import BASE_SESSION
from ringfence.policies.compiled.decider import CompiledDecider
from ringfence.policies.compiled.guarded import Disagreement, Guard, GuardedDecider, GuardSettings
from ringfence.policies.compiled.operands import Kind
from ringfence.policies.compiled.rules import RULES
from ringfence.policies.compiled.shortcuts import SHORTCUTS, comparison
from ringfence.policies.decision import Action, Decider, Query, Verdict
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import open_bundled

QUERY = Query("alice", ("clients",), Action.OPEN_SESSION, "gpu-1", BASE_SESSION)
REFUSED = msgspec.structs.replace(QUERY, context=msgspec.structs.replace(BASE_SESSION, risk=90))
AT_ONCE = GuardSettings(every=1, at_once=1)
LATER = GuardSettings(every=1, at_once=2, waiting=4)


@dataclass
class Events:
    """Where disagreements are told, and a clock that steps."""

    now_s: int = 1_000
    told: list[Disagreement] = field(default_factory=list)

    def clock(self) -> int:
        self.now_s += 1
        return self.now_s

    def guarded(self, compiled: Decider, oracle: Decider, settings: GuardSettings, draw: int = 0) -> GuardedDecider:
        guard = Guard(settings, self.clock, lambda most: min(draw, most - 1), self.told.append)
        return GuardedDecider(compiled, oracle, guard)


@pytest.fixture(scope="module")
def default() -> Bundle:
    return open_bundled("default")


@pytest.fixture(scope="module")
def faulty(default: Bundle) -> CompiledDecider:
    """A compiler that takes `>=` for something else."""
    at_least = ("greater_eq", (Kind.LONG, Kind.LONG))
    return CompiledDecider(default, replace(RULES, shortcuts={**SHORTCUTS, at_least: comparison(ast.NotEq)}))


def test_engines_that_agree_go_on(default: Bundle) -> None:
    events = Events()
    guarded: Decider = events.guarded(CompiledDecider(default), CedarDecider(default), AT_ONCE)
    for query in (QUERY, REFUSED, QUERY):
        assert guarded.decide(query) == CedarDecider(default).decide(query)
    assert guarded.bundle_digest == default.digest
    assert events.told == []


def test_disagreement_denies_and_the_oracle_takes_over(default: Bundle, faulty: CompiledDecider) -> None:
    events = Events()
    guarded = events.guarded(faulty, CedarDecider(default), AT_ONCE)
    assert faulty.decide(QUERY) != CedarDecider(default).decide(QUERY)

    verdict = guarded.decide(QUERY)

    assert (verdict.allowed, verdict.policies, len(verdict.errors)) == (False, (), 1)
    assert guarded.decide(QUERY) == CedarDecider(default).decide(QUERY)
    [told] = events.told
    assert guarded.disagreement == told
    assert (told.bundle_digest, told.since_s, told.found_s, told.denied) == (default.digest, 1_001, 1_002, True)
    assert told.oracle == CedarDecider(default).decide(QUERY)
    assert len(told.query_digest) == 64


def test_deferred_sample_waits_for_its_check(default: Bundle, faulty: CompiledDecider) -> None:
    events = Events()
    guarded = events.guarded(faulty, CedarDecider(default), LATER, draw=1)
    for _ in range(20):
        assert guarded.decide(QUERY) == faulty.decide(QUERY)
    assert events.told == []

    assert guarded.check_sampled() == 1

    [told] = events.told
    assert not told.denied
    assert guarded.decide(QUERY) == CedarDecider(default).decide(QUERY)
    assert guarded.check_sampled() == 0


def test_no_more_wait_than_may(default: Bundle) -> None:
    guarded = Events().guarded(CompiledDecider(default), CedarDecider(default), LATER, draw=1)
    for _ in range(50):
        guarded.decide(QUERY)
    assert guarded.check_sampled(most=3) == 3
    assert guarded.check_sampled() == 1
    assert guarded.check_sampled() == 0


def test_oracle_decides_even_where_telling_fails(default: Bundle, faulty: CompiledDecider) -> None:
    def fail(_: Disagreement) -> None:
        raise OSError

    guarded = GuardedDecider(faulty, CedarDecider(default), Guard(AT_ONCE, lambda: 0, lambda _: 0, fail))
    with pytest.raises(OSError):  # noqa: PT011 - the port's own
        guarded.decide(QUERY)
    assert guarded.decide(QUERY) == CedarDecider(default).decide(QUERY)


def test_sampling_is_as_often_as_asked() -> None:
    @dataclass
    class Counting:
        asked: int = 0
        bundle_digest: str = ""

        def decide(self, query: Query) -> Verdict:
            del query
            self.asked += 1
            return Verdict(False, (), ())

    quick, oracle = Counting(), Counting()
    random = Random(1)  # noqa: S311 - a test's chance
    settings = GuardSettings(every=50, at_once=1)
    guarded = GuardedDecider(quick, oracle, Guard(settings, lambda: 0, random.randrange, lambda _: None))
    for _ in range(20_000):
        guarded.decide(QUERY)
    assert quick.asked == 20_000
    assert 300 < oracle.asked < 500
    never = GuardedDecider(quick, oracle, Guard(GuardSettings(every=0), lambda: 0, random.randrange, lambda _: None))
    before = oracle.asked
    never.decide(QUERY)
    assert oracle.asked == before


def test_query_that_is_not_unicode_can_be_told(default: Bundle) -> None:
    @dataclass
    class Allowing:
        bundle_digest: str = ""

        def decide(self, query: Query) -> Verdict:
            del query
            return Verdict(True, ("x",), ())

    events = Events()
    guarded = events.guarded(Allowing(), CedarDecider(default), AT_ONCE)
    assert not guarded.decide(msgspec.structs.replace(QUERY, principal="\ud800")).allowed
    assert len(events.told) == 1
