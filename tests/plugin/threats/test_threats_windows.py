"""Sliding windows and token buckets against their definitions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.plugin.threats.rates import RateLimit
from ringfence.plugin.threats.tracks import MOST_NAMES, Window

PAUSES = st.lists(st.integers(0, 40), max_size=80)


@given(PAUSES)
@settings(deadline=None)
def test_a_window_counts_at_least_its_stretch_and_at_most_two(pauses: list[int]) -> None:
    window, now, times = Window(30, 100), 100, []
    for pause in pauses:
        now += pause
        times.append(now)
        count = window.add(now)
        assert count <= sum(1 for time in times if time > now - 60)
        assert count >= 1
        assert window.count(now) == count


def test_a_window_never_misses_a_burst_within_one_second_and_forgets_it_later() -> None:
    window = Window(60, 1000)
    assert [window.add(1059) for _ in range(20)][-1] == 20
    assert window.count(1060) == 20
    assert window.count(1090) == 10
    assert window.count(1120) == 0


def test_different_names_are_counted_once_and_up_to_a_bound() -> None:
    window = Window(60, 0)
    assert [window.name(0, name) for name in (1, 1, 2)] == [1, 1, 2]
    assert window.name(60, 3) == 3
    assert window.name(130, 4) == 2
    for name in range(1000):
        assert window.name(130, name) <= 2 * MOST_NAMES


@given(st.lists(st.integers(0, 5), max_size=200), st.integers(1, 20), st.sampled_from((0.5, 1.0, 3.0)))
@settings(deadline=None)
def test_a_bucket_never_lets_more_through_than_its_burst_and_rate(pauses: list[int], burst: int, per_s: float) -> None:
    limit, now, passed = RateLimit(per_s, burst, 10), 0, 0
    for pause in pauses:
        now += pause
        retry = limit.take("alice", now)
        passed += retry == 0
        assert passed <= burst + per_s * now + 1e-6
        if retry:
            # At the time that it names, one may pass.
            assert RateLimit(per_s, burst, 10).take("alice", now) == 0
            assert retry >= 1


@given(st.integers(1, 50), st.sampled_from((0.2, 1.0, 7.0)))
@settings(deadline=None)
def test_whoever_waits_as_long_as_it_is_told_may_pass(burst: int, per_s: float) -> None:
    limit = RateLimit(per_s, burst, 10)
    while not (retry := limit.take("alice", 0)):
        pass
    assert limit.take("alice", retry - 1) > 0 or retry == 1
    assert limit.take("alice", retry) == 0


def test_a_rate_of_nothing_limits_nothing_and_remembers_nobody() -> None:
    limit = RateLimit(0.0, 1, 10)
    assert {limit.take("alice", 0) for _ in range(1000)} == {0}
    assert len(limit) == 0
