"""What a gateway remembers, bounded and fail-closed: spent nonces and risk, whatever the clock does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from ringfence.plugin.errors import REQUEST_REPLAYED, GateError
from ringfence.plugin.replay import ReplayCache
from ringfence.plugin.risk import ledger as risk
from ringfence.plugin.risk.ledger import HALF_LIFE_S, RATE_FREE, SOURCE_SHARE, RiskLedger, RiskScore, tolerable

NOW = 1_800_000_000
LIFETIME_S = 10


def accepts(cache: ReplayCache, nonce: str, now: int) -> bool:
    try:
        cache.spend(nonce, now=now, code=REQUEST_REPLAYED)
    except GateError:
        return False
    return True


class ReplayModel(RuleBasedStateMachine):
    """A message is presented at moments of its life only: at others its own times have refused it before."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = ReplayCache(lifetime_s=LIFETIME_S, capacity=1000)
        self.accepted: set[tuple[int, int]] = set()
        self.latest = 0
        self.monotonic = True

    @rule(begins=st.integers(0, 60), age=st.integers(0, LIFETIME_S), number=st.integers(0, 1))
    def present(self, begins: int, age: int, number: int) -> None:
        message, now = (begins, number), NOW + begins + age
        self.monotonic &= now >= self.latest
        self.latest = max(self.latest, now)
        accepted = accepts(self.cache, str(message), now)
        assert not (accepted and message in self.accepted)
        if self.monotonic:
            assert accepted == (message not in self.accepted)
        if accepted:
            self.accepted.add(message)


TestReplayCache = ReplayModel.TestCase
TestReplayCache.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_clock_that_jumps_ahead_and_back_reopens_no_message() -> None:
    cache = ReplayCache(lifetime_s=LIFETIME_S, capacity=10)
    assert accepts(cache, "a", NOW)
    assert accepts(cache, "b", NOW + 1000)
    for now in range(NOW - 5, NOW + LIFETIME_S + 1):
        assert not accepts(cache, "a", now)
    assert accepts(cache, "c", NOW + LIFETIME_S + 1)


def test_a_full_cache_denies_until_it_forgets() -> None:
    cache = ReplayCache(lifetime_s=LIFETIME_S, capacity=2)
    assert accepts(cache, "a", NOW)
    assert accepts(cache, "b", NOW)
    with pytest.raises(GateError, match=r"integrity\.replay_capacity"):
        cache.spend("p", "c", until=NOW + LIFETIME_S + 60, now=NOW + LIFETIME_S, code=REQUEST_REPLAYED)
    assert accepts(cache, "c", NOW + 2 * LIFETIME_S)


STEPS = st.lists(st.tuples(st.sampled_from("ar"), st.sampled_from("ps"), st.integers(-(10**6), 10**6)), max_size=60)


@given(STEPS)
@settings(deadline=None)
def test_a_score_stays_between_0_and_100(steps: list[tuple[str, str, int]]) -> None:
    ledger = RiskLedger()
    for step, subject, shift in steps:
        if step == "r":
            ledger.refused(subject, now=NOW + shift)
        else:
            score = ledger.assess(subject, "source", now=NOW + shift)
            assert 0 <= score.score <= 100
            assert bool(score.reasons) == (score.score > 0)


def test_refusals_raise_the_score_and_fade_by_half_every_five_minutes() -> None:
    ledger = RiskLedger()
    assert ledger.assess("p", "s", now=NOW) == RiskScore(0, ())
    for _ in range(4):
        ledger.refused("p", now=NOW)
    assert ledger.assess("p", "s", now=NOW) == RiskScore(48, ("recent refusals",))
    # A clock that goes back gives no discount.
    assert ledger.assess("p", "s", now=NOW - 10**6).score == 48
    assert ledger.assess("p", "s", now=NOW + HALF_LIFE_S).score in (23, 24)
    assert ledger.assess("p", "s", now=NOW + 20 * HALF_LIFE_S).score == 0


def test_a_source_alone_never_reaches_what_policies_forbid() -> None:
    ledger = RiskLedger()
    for _ in range(1000):
        ledger.refused("s", now=NOW)
    assert ledger.assess("p", "s", now=NOW).score == SOURCE_SHARE


def test_an_unusual_rate_raises_the_score() -> None:
    ledger = RiskLedger()
    scores = [ledger.assess("p", "s", now=NOW).score for _ in range(2 * RATE_FREE + 10)]
    assert set(scores[:RATE_FREE]) == {0}
    assert scores == sorted(scores)
    assert scores[-1] == 100
    assert ledger.assess("q", "s", now=NOW).score == 0


def test_the_ledger_forgets_whoever_it_has_not_seen_for_longest() -> None:
    ledger = RiskLedger()
    for subject in ("old", "seen"):
        for _ in range(5):
            ledger.refused(subject, now=NOW)
    for number in range(risk.MAX_SUBJECTS - 2):
        ledger.refused(str(number), now=NOW)
    assert ledger.assess("seen", "0", now=NOW).score > 0
    ledger.refused("one more", now=NOW)
    assert ledger.assess("old", "new source", now=NOW).score == 0
    assert ledger.assess("seen", "new source", now=NOW).score == 60


@pytest.mark.parametrize(
    ("score", "ceiling", "holds"), [(0, 1, True), (89, 90, True), (90, 90, False), (100, 101, True)]
)
def test_the_gateways_own_ceiling_is_the_first_score_refused(score: int, ceiling: int, holds: bool) -> None:
    value = RiskScore(score, ("recent refusals",))
    if holds:
        assert tolerable(value, ceiling) is value
    else:
        with pytest.raises(GateError, match="recent refusals"):
            tolerable(value, ceiling)
