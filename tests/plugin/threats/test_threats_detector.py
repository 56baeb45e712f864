"""Threats as they are seen, told and reacted to; and who never suffers for what others do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ringfence.plugin.errors import LimitedError
from ringfence.plugin.threats.detector import CLEAR, Detector, admit
from ringfence.plugin.threats.events import Pattern, Reaction, ThreatEvent
from ringfence.plugin.threats.port import Happened, Sighting, Standing, ThreatDetector
from ringfence.plugin.threats.settings import Rule, ThreatSettings

NOW = 1_790_326_800
STRANGER = Sighting(Happened.REFUSED, "session.unknown", "192.0.2.66", "", "", "", "", NOW)
CALLER = Sighting(Happened.REFUSED, "policy.denied", "192.0.2.1", "alice", "", "s1", "office", NOW)


class Watched:
    """A detector with everything that it told."""

    def __init__(self, settings: ThreatSettings | None = None) -> None:
        self.told: list[ThreatEvent] = []
        self.clock = Detector(settings or ThreatSettings(), self.told.append)
        self.detector: ThreatDetector = self.clock

    def see(self, sighting: Sighting, times: int = 1) -> None:
        for _ in range(times):
            self.detector.see(sighting)

    def stands(self, *, source: str = "192.0.2.66", principal: str = "", now: int = NOW) -> Standing:
        return self.detector.standing(source=source, principal=principal, now=now)

    def pass_time(self, now: int, seconds: int) -> int:
        for _ in range(seconds // 60):
            now += 60
            self.clock.tick(now)
        return now


def test_nobody_is_anything_at_first() -> None:
    watched = Watched()
    assert watched.stands() is CLEAR
    assert watched.stands(principal="alice") is CLEAR


def test_a_burst_of_refusals_locks_out_the_source_of_a_stranger_and_is_told_once() -> None:
    watched = Watched()
    watched.see(STRANGER, 19)
    assert watched.stands() is CLEAR
    watched.see(STRANGER)
    assert watched.told == [ThreatEvent(Pattern.REFUSALS, "source", "192.0.2.66", 20, Reaction.LOCK_OUT, NOW + 30, NOW)]
    standing = watched.stands()
    assert (standing.locked_until, standing.risk) == (NOW + 30, 20)
    # Who goes on trying is not told of again, and is not held for longer.
    watched.see(STRANGER, 100)
    assert len(watched.told) == 1
    assert watched.stands(now=NOW + 30).locked_until == 0


def test_refusals_that_are_spread_over_time_are_no_burst() -> None:
    watched = Watched()
    for minute in range(100):
        watched.see(replace(STRANGER, now=NOW + 60 * minute), 9)
    assert watched.told == []


def test_each_further_lock_out_takes_twice_as_long_up_to_the_most_and_strikes_fade() -> None:
    watched = Watched(ThreatSettings(lock_s=30, lock_max_s=200))
    now, lasted = NOW, []
    for _ in range(5):
        watched.see(replace(STRANGER, now=now), 20)
        lasted.append(watched.told[-1].until - now)
        now = watched.told[-1].until
        watched.clock.tick(now)
    assert lasted == [30, pytest.approx(60, abs=2), pytest.approx(115, abs=6), 200, 200]
    now = watched.pass_time(now, 20 * 3600)
    watched.see(replace(STRANGER, now=now), 20)
    assert watched.told[-1].until - now == 30


def test_an_authenticated_caller_answers_for_its_own_refusals() -> None:
    watched = Watched()
    watched.see(CALLER, 20)
    assert [(event.against, event.subject) for event in watched.told] == [("principal", "alice")]
    assert watched.stands(source="192.0.2.1", principal="alice").locked_until == NOW + 30
    assert watched.stands(source="192.0.2.1", principal="bob") is CLEAR
    assert watched.stands(source="192.0.2.1") is CLEAR


def test_who_claims_to_be_somebody_harms_only_its_own_source() -> None:
    watched = Watched()
    watched.see(replace(STRANGER, what=Happened.BAD_CREDENTIAL, claimed="alice", session="s1"), 500)
    watched.see(replace(STRANGER, claimed="alice", session="s1"), 500)
    assert {event.subject for event in watched.told} == {"192.0.2.66"}
    assert watched.stands(source="192.0.2.1", principal="alice") is CLEAR


def test_a_source_adds_a_capped_risk_to_a_caller_and_never_locks_it_out() -> None:
    watched = Watched()
    for _ in range(10):
        watched.see(STRANGER, 20)
        watched.see(replace(STRANGER, what=Happened.REPLAYED), 20)
    beside = watched.stands(principal="alice")
    assert beside == Standing(risk=10)


def test_one_source_that_tries_many_principals_is_stuffing_credentials() -> None:
    watched = Watched()
    bad = replace(STRANGER, what=Happened.BAD_CREDENTIAL)
    watched.see(replace(bad, claimed="alice"), 7)
    assert watched.told == []
    for number in range(7):
        watched.see(replace(bad, claimed=f"user{number}"))
    assert [(event.pattern, event.count) for event in watched.told] == [(Pattern.CREDENTIALS, 8)]
    assert watched.stands().locked_until > NOW


def test_mistakes_of_many_callers_behind_one_address_over_days_are_no_stuffing() -> None:
    watched = Watched()
    now = NOW
    for number in range(40):
        watched.see(replace(STRANGER, what=Happened.BAD_CREDENTIAL, claimed=f"user{number}", now=now))
        now = watched.pass_time(now, 120)
    assert watched.told == []


def test_a_replay_counts_against_its_source_and_a_replayed_session_is_only_told_of() -> None:
    watched = Watched()
    watched.see(replace(CALLER, what=Happened.OPENED))
    replayed = replace(CALLER, what=Happened.REPLAYED)
    for number in range(10):
        watched.see(replace(replayed, source=f"192.0.2.{100 + number}"))
    assert [(event.pattern, event.reaction) for event in watched.told] == [(Pattern.SESSION_REPLAYS, Reaction.TELL)]
    assert watched.stands(source="192.0.2.1", principal="alice") is CLEAR
    watched.see(replace(replayed, source="192.0.2.100"), 9)
    assert watched.told[-1].pattern is Pattern.REPLAYS
    assert watched.told[-1].subject == "192.0.2.100"


def test_a_session_that_is_used_from_another_region_within_seconds_must_step_up() -> None:
    watched = Watched()
    allowed = replace(CALLER, what=Happened.ALLOWED, code="")
    watched.see(allowed)
    watched.see(replace(allowed, now=NOW + 10))
    watched.see(replace(allowed, region="elsewhere", now=NOW + 20))
    assert [event.pattern for event in watched.told] == [Pattern.REGION_JUMP]
    standing = watched.stands(source="192.0.2.1", principal="alice", now=NOW + 20)
    assert (standing.step_up, standing.locked_until) == ("signature", 0)
    assert standing.risk > 0
    later = watched.pass_time(NOW + 20, 900)
    assert watched.stands(source="192.0.2.1", principal="alice", now=later).step_up == ""


def test_a_session_that_moves_slowly_may() -> None:
    watched = Watched()
    allowed = replace(CALLER, what=Happened.ALLOWED, code="")
    watched.see(allowed)
    watched.see(replace(allowed, region="elsewhere", now=watched.pass_time(NOW, 360)))
    assert watched.told == []


def test_asking_for_a_further_factor_again_and_again_in_vain_raises_risk() -> None:
    watched = Watched()
    asked = replace(CALLER, what=Happened.STEPPED_UP)
    watched.see(asked, 4)
    watched.see(replace(CALLER, what=Happened.OPENED, session="s2"))
    watched.see(asked, 4)
    assert watched.told == []
    watched.see(asked)
    assert [event.pattern for event in watched.told] == [Pattern.STEP_UPS]
    assert watched.stands(principal="alice").risk == 20


def test_sessions_that_are_opened_far_faster_than_they_are_used_are_a_threat() -> None:
    watched = Watched()
    for number in range(60):
        watched.see(replace(CALLER, what=Happened.OPENED, session=f"used {number}"))
        watched.see(replace(CALLER, what=Happened.ALLOWED, session=f"used {number}"))
    assert watched.told == []
    for number in range(20):
        watched.see(replace(CALLER, what=Happened.OPENED, session=f"unused {number}"))
    assert [event.pattern for event in watched.told] == [Pattern.OPENINGS]


@pytest.mark.parametrize("source", ["unix", "127.0.0.1", "127.9.9.9", "::1", "10.0.0.7", "::ffff:10.0.0.7", ""])
def test_a_source_that_many_share_is_neither_locked_out_nor_limited(source: str) -> None:
    watched = Watched(ThreatSettings(shared_sources=("10.0.0.0/8",), source_per_s=1.0, source_burst=1))
    watched.see(replace(STRANGER, source=source), 100)
    assert {event.reaction for event in watched.told} == {Reaction.RAISE_RISK}
    for _ in range(100):
        standing = watched.stands(source=source)
        assert (standing.locked_until, standing.retry_after_s) == (0, 0)


def test_reactions_are_as_configured() -> None:
    for name in ("tell", "raise-risk", "step-up", "lock-out"):
        watched = Watched(ThreatSettings(refusals=Rule(3, 60, name), factor="webauthn"))
        watched.see(CALLER, 3)
        standing = watched.stands(principal="alice")
        assert watched.told[0].reaction.value == name
        assert (standing.risk > 0) is (name != "tell")
        assert standing.step_up == ("webauthn" if name == "step-up" else "")
        assert (standing.locked_until > 0) is (name == "lock-out")


def test_a_rate_is_refused_with_when_to_try_again_and_let_through_then() -> None:
    watched = Watched(ThreatSettings(principal_per_s=2.0, principal_burst=10))
    standings = [watched.stands(principal="alice") for _ in range(12)]
    assert [standing.retry_after_s for standing in standings] == [0] * 10 + [1, 1]
    assert watched.stands(principal="bob") is CLEAR
    with pytest.raises(LimitedError, match=r"threat\.rate_exceeded") as caught:
        admit(standings[-1], now=NOW)
    assert caught.value.retry_after_s == 1
    assert caught.value.code.kind.http == 429
    after = [watched.stands(principal="alice", now=NOW + 1).retry_after_s for _ in range(3)]
    assert after == [0, 0, 1]


def test_who_is_locked_out_is_refused_with_when_to_try_again() -> None:
    with pytest.raises(LimitedError, match=r"threat\.locked_out") as caught:
        admit(Standing(locked_until=NOW + 30), now=NOW)
    assert caught.value.retry_after_s == 30
    standing = Standing(risk=100, step_up="webauthn", locked_until=NOW)
    assert admit(standing, now=NOW) is standing


def test_a_flood_of_new_sources_makes_no_attacker_forgotten() -> None:
    watched = Watched(ThreatSettings(subjects=100, sessions=100))
    watched.see(STRANGER, 19)
    locked = replace(STRANGER, source="192.0.2.67")
    watched.see(locked, 20)
    for number in range(3000):
        watched.see(replace(STRANGER, source=f"198.51.{number % 100}.{number // 100}"))
        watched.see(replace(CALLER, what=Happened.ALLOWED, session=f"s {number}"))
    watched.see(STRANGER)
    assert [event.subject for event in watched.told] == ["192.0.2.67", "192.0.2.66"]
    assert watched.stands(source="192.0.2.67").locked_until == NOW + 30


def test_a_flood_of_subjects_resets_nobodys_rate() -> None:
    watched = Watched(ThreatSettings(subjects=100, principal_per_s=1.0, principal_burst=5))
    for _ in range(5):
        watched.stands(principal="greedy")
    for number in range(3000):
        watched.stands(principal=f"p{number}")
    assert watched.stands(principal="greedy").retry_after_s == 1


@pytest.mark.parametrize("shift", [-(10**9), -3600, -300, -1, 301, 3600, 10**9])
def test_a_clock_that_jumps_ends_no_lock_out_and_raises_nothing(shift: int) -> None:
    watched = Watched()
    watched.see(CALLER, 20)
    before = watched.stands(source="192.0.2.1", principal="alice")
    after = watched.stands(source="192.0.2.1", principal="alice", now=NOW + shift)
    assert after.risk == before.risk
    assert after.locked_until - (NOW + shift) >= 30
    watched.see(replace(CALLER, now=NOW + shift))
    assert watched.stands(source="192.0.2.1", principal="alice", now=NOW + shift).retry_after_s == 0


SIGHTINGS = st.lists(
    st.builds(
        Sighting,
        what=st.sampled_from(Happened),
        code=st.just("x"),
        source=st.sampled_from(("192.0.2.66", "192.0.2.67", "unix")),
        principal=st.just(""),
        claimed=st.sampled_from(("", "alice", "bob")),
        session=st.sampled_from(("", "s1", "s2")),
        region=st.sampled_from(("", "office")),
        now=st.integers(NOW - 10**6, NOW + 10**6),
    ),
    max_size=120,
)


@given(SIGHTINGS)
@settings(deadline=None, max_examples=60)
def test_whatever_strangers_do_changes_nothing_for_a_principal_elsewhere(sightings: list[Sighting]) -> None:
    eager = Rule(2, 60, "lock-out")
    watched = Watched(
        ThreatSettings(
            refusals=eager, credentials=eager, replays=eager, region_jump=eager, step_ups=eager, openings=eager
        )
    )
    for sighting in sightings:
        watched.see(sighting)
    for principal in ("alice", "bob"):
        assert watched.stands(source="192.0.2.1", principal=principal) is CLEAR
        beside = watched.stands(source="192.0.2.66", principal=principal)
        assert (beside.locked_until, beside.step_up) == (0, "")
        assert beside.risk <= 10
    assert all(event.against == "source" for event in watched.told)


@given(SIGHTINGS, st.lists(st.booleans(), max_size=120))
@settings(deadline=None, max_examples=60)
def test_a_standing_stays_within_its_bounds(sightings: list[Sighting], authenticated: list[bool]) -> None:
    eager = Rule(2, 60, "lock-out")
    watched = Watched(ThreatSettings(refusals=eager, replays=eager, openings=eager, region_jump=eager, lock_max_s=100))
    for sighting, known in zip(sightings, authenticated, strict=False):
        watched.see(replace(sighting, principal="alice") if known else sighting)
        standing = watched.stands(source=sighting.source, principal="alice" if known else "", now=sighting.now)
        assert 0 <= standing.risk <= 100
        assert standing.locked_until == 0 or sighting.now < standing.locked_until <= sighting.now + 100
        assert standing.retry_after_s >= 0


def test_more_refusals_never_make_a_standing_milder() -> None:
    before = Standing()
    watched = Watched()
    for _ in range(200):
        watched.see(CALLER)
        after = watched.stands(principal="alice")
        assert after.risk >= before.risk
        assert after.locked_until >= before.locked_until
        before = after


def test_a_shared_source_that_is_no_network_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="192"):
        Watched(ThreatSettings(shared_sources=("192.0.2.1/8",)))
