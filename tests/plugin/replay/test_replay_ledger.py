"""The ledger of nonces: nothing is accepted twice, whatever the clock does, and nobody fills it for others."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from ringfence.audit import Decision, Operator
from ringfence.plugin.errors import REQUEST_REPLAYED, GateError
from ringfence.plugin.replay import NonceLedger, Spent, spent_nonces

NOW = 1_800_000_000
LIFETIME_S = 10


def outcome(ledger: NonceLedger, nonce: str, *, now: int, until: int | None = None, principal: str = "p") -> str:
    """The code of the refusal, or nothing."""
    try:
        ledger.spend(
            principal, nonce, until=now + LIFETIME_S if until is None else until, now=now, code=REQUEST_REPLAYED
        )
    except GateError as error:
        return error.code.name
    return ""


def ledger(capacity: int = 1000, quota: int = 1000) -> NonceLedger:
    return NonceLedger(lifetime_s=LIFETIME_S, capacity=capacity, quota=quota)


class LedgerModel(RuleBasedStateMachine):
    """A message is presented at moments of its life only: at others its own times have refused it before."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger(quota=6)
        self.accepted: set[tuple[str, str, int]] = set()
        self.latest = 0
        self.monotonic = True

    @rule(
        begins=st.integers(0, 60) | st.integers(10**6, 10**6 + 5),
        life=st.integers(0, LIFETIME_S),
        age=st.integers(0, LIFETIME_S),
        number=st.integers(0, 1),
        principal=st.sampled_from("pq"),
    )
    def present(self, begins: int, life: int, age: int, number: int, principal: str) -> None:
        until, now = NOW + begins + life, NOW + begins + min(age, life)
        nonce = f"{begins} {life} {number}"
        self.monotonic &= now >= self.latest
        self.latest = max(self.latest, now)
        code = outcome(self.ledger, nonce, now=now, until=until, principal=principal)
        message = principal, nonce, until
        assert not (code == "" and message in self.accepted)
        if self.monotonic:
            valid = sum(1 for owner, _, end in self.accepted if owner == principal and end >= now)
            if message in self.accepted:
                assert code == "integrity.replayed"
            elif code:
                assert code == "integrity.replay_quota"
                kept = sum(1 for owner, _, end in self.accepted if owner == principal and end >= now - LIFETIME_S)
                assert kept >= 6
            else:
                assert valid < 6
        if code == "":
            self.accepted.add(message)

    @rule(now=st.integers(0, 80))
    def restart(self, now: int) -> None:
        # The clock may be anywhere when the process starts again; the log has everything.
        self.monotonic = False
        self.ledger = ledger(quota=6)
        self.ledger.restore([Spent(*message) for message in sorted(self.accepted)], now=NOW + now)


TestLedger = LedgerModel.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_clock_that_jumps_ahead_and_back_reopens_no_message() -> None:
    nonces = ledger()
    assert outcome(nonces, "a", now=NOW) == ""
    assert outcome(nonces, "b", now=NOW + 1000) == ""
    for now in range(NOW - 5, NOW + LIFETIME_S + 1):
        assert outcome(nonces, "a", now=now, until=NOW + LIFETIME_S) == "integrity.replayed"
    assert outcome(nonces, "c", now=NOW + LIFETIME_S + 1) == ""


def test_a_nonce_is_remembered_under_any_expiry() -> None:
    nonces = ledger()
    assert outcome(nonces, "a", now=NOW, until=NOW + 1) == ""
    for until in range(NOW, NOW + LIFETIME_S + 1):
        assert outcome(nonces, "a", now=NOW, until=until) == "integrity.replayed"
    assert outcome(nonces, "a", now=NOW, principal="another") == ""


def test_a_message_that_lives_too_long_is_refused() -> None:
    assert outcome(ledger(), "a", now=NOW, until=NOW + LIFETIME_S + 1) == "integrity.replayed"


def test_a_full_ledger_denies_until_it_forgets() -> None:
    nonces = ledger(capacity=2)
    assert [outcome(nonces, nonce, now=NOW) for nonce in "abc"] == ["", "", "integrity.replay_capacity"]
    assert outcome(nonces, "c", now=NOW + 2 * LIFETIME_S) == ""
    assert len(nonces) == 1


def test_a_clock_that_wanders_makes_no_endless_buckets() -> None:
    nonces = ledger()
    codes = [outcome(nonces, str(step), now=NOW - 100 * step) for step in range(20)]
    assert codes == [""] * 16 + ["integrity.replay_capacity"] * 4


def test_who_fills_its_quota_is_refused_and_others_are_not() -> None:
    nonces = ledger(quota=3)
    assert [outcome(nonces, str(number), now=NOW) for number in range(4)] == ["", "", "", "integrity.replay_quota"]
    assert outcome(nonces, "0", now=NOW) == "integrity.replayed"
    assert outcome(nonces, "3", now=NOW, principal="q") == ""
    assert outcome(nonces, "4", now=NOW + 2 * LIFETIME_S) == ""


def test_what_a_log_says_was_spent_stays_spent() -> None:
    records = (
        Operator(event="started", component="gateway"),
        Decision(decision_id="1", pipeline="request", verdict="allow", principal="p", nonce="a", nonce_until=NOW + 5),
        Decision(decision_id="2", pipeline="request", verdict="deny", principal="p", nonce="b", nonce_until=NOW + 6),
        Decision(decision_id="3", pipeline="request", verdict="deny", principal="p"),
        Decision(decision_id="4", pipeline="request", verdict="allow", principal="p", nonce="old", nonce_until=NOW - 1),
    )
    spent = list(spent_nonces(records))
    assert [one.nonce for one in spent] == ["a", "b", "old"]
    nonces = ledger()
    nonces.restore([*spent, *spent], now=NOW)
    assert len(nonces) == 2
    assert outcome(nonces, "a", now=NOW, until=NOW + 5) == "integrity.replayed"
    assert outcome(nonces, "b", now=NOW, until=NOW + 6) == "integrity.replayed"
    # The clock goes back after the restart, to a time at which a message that was not read back is valid.
    assert outcome(nonces, "old", now=NOW - 2, until=NOW - 1) == "integrity.replayed"
    assert outcome(nonces, "new", now=NOW) == ""


def test_what_does_not_fit_after_a_restart_closes_its_time() -> None:
    nonces = ledger(capacity=1)
    nonces.restore([Spent("p", "a", NOW + 3), Spent("p", "b", NOW + 5)], now=NOW)
    assert outcome(nonces, "b", now=NOW, until=NOW + 5) == "integrity.replayed"
    assert outcome(nonces, "c", now=NOW, until=NOW + 5) == "integrity.replayed"


def test_a_million_nonces_are_all_accepted_and_none_twice() -> None:
    nonces = ledger(capacity=1_000_000, quota=2_000_000)
    for number in range(1_000_000):
        nonces.spend("p", f"{number:016x}", until=NOW + 5, now=NOW, code=REQUEST_REPLAYED)
    for number in range(0, 1_000_000, 9973):
        assert outcome(nonces, f"{number:016x}", now=NOW, until=NOW + 5) == "integrity.replayed"
    assert outcome(nonces, "one more", now=NOW) == "integrity.replay_capacity"
    assert outcome(nonces, "later", now=NOW + 2 * LIFETIME_S) == ""
    assert len(nonces) == 1
