"""What is learned, how fast, from whom: the limits that docs/risk.md promises against poisoning."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.baseline import Baseline
from ringfence.plugin.risk.port import Features
from tests.plugin.risk.risk_bench import NOW, SETTINGS, USUAL, features_of, known


def baseline(assessor: Assessor, principal: str = "alice") -> Baseline:
    found = assessor.baseline(principal)
    assert found is not None
    return found


def mean_bytes(assessor: Assessor) -> float:
    return baseline(assessor).size_mean


@given(st.integers(0, 2**62))
@settings(max_examples=50, deadline=None)
def test_one_request_moves_a_mean_by_no_more_than_its_bound(size: int) -> None:
    assessor, now = known()
    before = mean_bytes(assessor)
    deviation = math.sqrt(max(0.25, baseline(assessor).size_variance))
    assessor.assess(replace(USUAL, size=size, now=now))
    assessor.assess(replace(USUAL, now=now + 60))
    moved = abs(mean_bytes(assessor) - before)
    assert moved <= SETTINGS.learning_rate * 3 * deviation + 1e-12
    assert moved <= SETTINGS.learning_rate * 3 * 2 + 1e-12


def test_no_more_than_sixty_requests_an_hour_are_learned() -> None:
    assessor, now = known()
    before = baseline(assessor).seen
    for second in range(3600):
        for _ in range(3):
            assessor.assess(replace(USUAL, size=2**30, now=now + second))
    # And the one that waited from before.
    assert baseline(assessor).seen - before <= 3600 / SETTINGS.learn_every_s + 1


def test_a_patient_poisoner_moves_the_threshold_in_an_hour_by_a_bounded_factor() -> None:
    assessor, now = known()
    before = mean_bytes(assessor)
    for minute in range(60):
        assessor.assess(replace(USUAL, size=2**60, now=now + 60 * minute))
    assert mean_bytes(assessor) - before <= 60 * SETTINGS.learning_rate * 3 * 2
    assert "size" in features_of(assessor.assess(replace(USUAL, size=2**60, now=now + 3600)))


def test_what_was_refused_is_not_learned() -> None:
    assessor, now = known()
    before = mean_bytes(assessor), dict(baseline(assessor).usual)
    for minute in range(600):
        assessor.assess(replace(USUAL, size=2**40, action="Access", now=now + 60 * minute))
        assessor.refused("alice", authenticated=True, now=now + 60 * minute)
    after = baseline(assessor)
    assert after.size_mean <= before[0] + SETTINGS.learning_rate * 3 * 2
    assert "Access" not in after.usual


def test_what_strangers_do_teaches_nothing() -> None:
    assessor, now = known()
    before = baseline(assessor).seen
    for _ in range(1000):
        assessor.refused("alice", authenticated=False, now=now)
    assert baseline(assessor).seen == before
    assert baseline(assessor).refusals == 0


def test_a_caller_who_changes_for_good_is_usual_again_after_a_while() -> None:
    assessor, now = known()
    assert "size" in features_of(assessor.assess(replace(USUAL, size=2**18, now=now)))
    for minute in range(1, 600):
        assessor.assess(replace(USUAL, size=2**18, now=now + 60 * minute))
    assert "size" not in features_of(assessor.assess(replace(USUAL, size=2**18, now=now + 60 * 600)))


def test_who_stays_away_for_long_is_a_newcomer_again() -> None:
    assessor, now = known()
    for _ in range(60 * 86_400 // 300):
        now += 300
        assessor.tick(now)
    assessor.assess(replace(USUAL, now=now))
    now += 60
    assert "cold-start" in features_of(assessor.assess(replace(USUAL, now=now)))


def test_an_action_that_is_learned_is_usual_and_rare_ones_are_forgotten() -> None:
    assessor, now = known()
    assert "action" in features_of(assessor.assess(replace(USUAL, action="Access", now=now)))
    assert "action" not in features_of(assessor.assess(replace(USUAL, action="Access", now=now + 60)))
    for number in range(100):
        now += 60
        assessor.assess(replace(USUAL, action=f"a{number}", now=now))
    assert len(baseline(assessor).usual) <= 16


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("assess", "refused", "stranger", "tick")),
        st.sampled_from(("p", "q")),
        st.integers(-(10**6), 10**6),
        st.integers(-1, 2**62),
        st.sampled_from(("", "here", "there")),
        st.integers(0, 9),
    ),
    max_size=60,
)


@given(STEPS)
@settings(deadline=None, max_examples=60)
def test_a_score_is_bounded_and_its_reasons_carry_it_whatever_happens(
    steps: list[tuple[str, str, int, int, str, int]],
) -> None:
    assessor, base = known(principal="p")
    for step, subject, shift, size, region, drift in steps:
        now = base + shift
        if step == "refused":
            assessor.refused(subject, authenticated=True, now=now)
        elif step == "stranger":
            assessor.refused(subject, authenticated=False, now=now)
        elif step == "tick":
            assessor.tick(now)
        else:
            score = assessor.assess(Features(subject, "q", "SubmitJob", size, region, drift, now))
            assert 0 <= score.score <= 100
            assert sum(reason.points for reason in score.reasons) >= score.score
            assert all(reason.points > 0 and reason.text for reason in score.reasons)


@given(st.integers(0, 80), st.integers(0, 80), st.booleans())
@settings(deadline=None, max_examples=40)
def test_more_refusals_never_lower_a_score(first: int, more: int, authenticated: bool) -> None:
    scores = []
    for count in (first, first + more):
        assessor, now = known()
        for _ in range(count):
            assessor.refused("alice" if authenticated else USUAL.source, authenticated=authenticated, now=now)
        scores.append(assessor.assess(replace(USUAL, now=now)).score)
    assert scores[0] <= scores[1]


@given(st.integers(1, 64), st.lists(st.integers(0, 300), min_size=1, max_size=30))
@settings(deadline=None, max_examples=40)
def test_without_new_refusals_their_points_only_fall(count: int, pauses: list[int]) -> None:
    assessor = Assessor(SETTINGS)
    now = NOW
    for _ in range(count):
        assessor.refused("alice", authenticated=True, now=now)
    last = 101
    for pause in pauses:
        now += pause
        points = features_of(assessor.assess(replace(USUAL, now=now))).get("refusals", 0)
        assert points <= last
        last = points
