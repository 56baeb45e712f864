"""The store of sessions: found until they end, whatever the clock does, in bounded steps."""

from __future__ import annotations

import gc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.port import Ended, Selection, Session
from ringfence.plugin.sessions.store import SLICE, MemorySessions

NOW = 1_800_000_000
KEY = bytes(range(32))


def session(name: str = "a", **fields: Any) -> Session:
    """A session of a name that is written as the gateway writes them, unless it has more than one character."""
    made: dict[str, Any] = {
        "name": name * 32 if len(name) == 1 else name,
        "principal": "principal",
        "groups": ("job-submitters",),
        "host": "host",
        "status": "affirming",
        "attestation_digest": "digest",
        "bundle_digest": "bundle",
        "opened_at": NOW,
        "expires_at": NOW + 100,
        "idle_s": 50,
        "key": KEY,
    }
    return Session(**made | fields)


def code(store: MemorySessions, name: str, now: int) -> str:
    try:
        store.find(name, now=now)
    except GateError as error:
        return error.code.name
    return ""


def test_a_session_is_found_until_it_expires_or_is_idle_or_ends() -> None:
    store = MemorySessions(10)
    for name in "abc":
        store.add(session(name, idle_s=50 if name == "b" else 1000), now=NOW)
    assert store.find("a" * 32, now=NOW + 99) == session("a", idle_s=1000)
    assert code(store, "a" * 32, NOW + 100) == "session.expired"
    assert code(store, "b" * 32, NOW + 50) == "session.idle"
    assert store.end("c" * 32, Ended.REVOKED) == session("c", idle_s=1000)
    assert store.end("c" * 32, Ended.REVOKED) is None
    assert code(store, "c" * 32, NOW) == "session.unknown"
    assert store.ended[Ended.REVOKED] == 1


def test_a_clock_that_goes_back_revives_nothing() -> None:
    store = MemorySessions(10)
    store.add(session(), now=NOW)
    assert code(store, "a" * 32, NOW + 1000) == "session.expired"
    store.touch("a" * 32, now=NOW)
    assert code(store, "a" * 32, NOW) != ""
    assert list(store.select(Selection())) == []
    with pytest.raises(GateError, match=r"session\.unknown"):
        store.change(session())
    assert [why for _, why in store.sweep(now=NOW)] == [Ended.IDLE]
    assert len(store) == 0


def test_a_session_that_is_used_is_not_idle() -> None:
    store = MemorySessions(10)
    store.add(session(), now=NOW)
    for now in range(NOW, NOW + 100, 49):
        store.find("a" * 32, now=now)
        store.touch("a" * 32, now=now)
    assert code(store, "a" * 32, NOW + 100) == "session.expired"
    with pytest.raises(GateError, match=r"session\.unknown"):
        store.touch("nobody", now=NOW)


@pytest.mark.parametrize("name", ["session", "A" * 32, " " * 32, "é" * 16, "\ud800\ud800", "", "0" * 31, "ab" * 16])
def test_every_name_is_its_own(name: str) -> None:
    store = MemorySessions(10)
    assert code(store, name, NOW) == "session.unknown"
    made = session(name, thumbprint="not a digest", expires_at=NOW + 60)
    store.add(made, now=NOW)
    assert store.find(name, now=NOW) == made
    if name.lower() != name:
        assert code(store, name.lower(), NOW) == "session.unknown"


FACTORS = st.lists(st.tuples(st.sampled_from(["mtls", "webauthn"]), st.sampled_from([0, NOW, NOW + 30])), max_size=2)
TEXTS = st.sampled_from(["", "one", "two"])


@given(
    groups=st.lists(TEXTS, max_size=2),
    factors=FACTORS,
    thumbprint=st.sampled_from(["", "ab" * 32, "AB" * 32, "text"]),
    source=TEXTS,
    tenant=TEXTS,
    attributes=st.lists(TEXTS, max_size=2),
    directory_at=st.sampled_from([0, NOW]),
)
def test_a_session_comes_back_as_it_went_in(**fields: Any) -> None:
    store = MemorySessions(2)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    made = session(**values)
    store.add(made, now=NOW)
    assert store.find(made.name, now=NOW) == made


def test_a_factor_that_ended_before_the_opening_does_not_come_back_as_one_that_never_ends() -> None:
    store = MemorySessions(2)
    store.add(session(factors=(("webauthn", NOW - 5), ("totp", NOW))), now=NOW)
    assert store.find("a" * 32, now=NOW).factors == (("webauthn", NOW), ("totp", NOW))


def test_only_ended_sessions_make_room() -> None:
    store = MemorySessions(2)
    store.add(session("a", expires_at=NOW + 1), now=NOW)
    store.add(session("b", expires_at=NOW + 2), now=NOW)
    with pytest.raises(GateError, match=r"session\.capacity"):
        store.add(session("c"), now=NOW)
    store.add(session("c"), now=NOW + 1)
    assert len(store) == 2
    assert [(ended.name[0], why) for ended, why in store.sweep(now=NOW + 1)] == [("a", Ended.EXPIRED)]


def test_a_second_session_of_a_name_replaces_the_first() -> None:
    store = MemorySessions(2)
    store.add(session("a"), now=NOW)
    store.add(session("a", principal="other"), now=NOW)
    assert store.find("a" * 32, now=NOW).principal == "other"
    assert (len(store), store.ended[Ended.REPLACED]) == (1, 1)


def test_a_change_narrows_and_never_widens() -> None:
    store = MemorySessions(2)
    store.add(session(factors=(("mtls", 0), ("webauthn", 0))), now=NOW)
    store.find("a" * 32, now=NOW)
    store.change(session(factors=(("mtls", 0),), expires_at=NOW + 60, idle_s=20))
    store.change(session(factors=(("mtls", 0),), expires_at=NOW + 600, idle_s=2000))
    assert store.find("a" * 32, now=NOW) == session(factors=(("mtls", 0),), expires_at=NOW + 60, idle_s=20)
    assert code(store, "a" * 32, NOW + 20) == "session.idle"
    with pytest.raises(GateError, match=r"session\.unknown"):
        store.change(session("b"))


@pytest.mark.parametrize("other", [{"key": bytes(32)}, {"principal": "other"}, {"opened_at": NOW + 1}])
def test_a_change_is_of_one_session(other: dict[str, Any]) -> None:
    store = MemorySessions(2)
    store.add(session(), now=NOW)
    with pytest.raises(ValueError, match="a change keeps"):
        store.change(msgspec.structs.replace(session(), **other))


@pytest.mark.parametrize("bad", [{"key": b"short"}, {"opened_at": -1}])
def test_what_cannot_be_kept_leaves_nothing(bad: dict[str, Any]) -> None:
    store = MemorySessions(2)
    with pytest.raises(ValueError, match="a session's"):
        store.add(session(**bad), now=NOW)
    assert len(store) == 0
    store.add(session(), now=NOW)
    assert store.find("a" * 32, now=NOW) == session()


def test_a_selection_is_scanned_in_slices() -> None:
    store = MemorySessions(4 * SLICE)
    for number in range(3 * SLICE + 1):
        name = f"{number:032x}"
        store.add(session(name, principal=f"p{number % 7}", host=f"h{number % 3}"), now=NOW)
    found = {made.name for made in store.select(Selection(principal="p3", host="h2"))}
    assert found == {f"{number:032x}" for number in range(3 * SLICE + 1) if (number % 7, number % 3) == (3, 2)}
    assert len(list(store.select(Selection(bundle_digest="bundle")))) == 3 * SLICE + 1
    assert store.scan((Selection(principal="nobody"),), 0) == ([], SLICE)
    assert store.scan((Selection(bundle_digest="other"),), 0) == ([], SLICE)
    several = Selection(principal="p3", host="h2"), Selection(host="h1"), Selection(session=f"{5:032x}")
    names = [made.name for made in store.scan(several, 0, 4 * SLICE)[0]]
    assert set(names) == found | {f"{n:032x}" for n in range(3 * SLICE + 1) if n % 3 == 1} | {f"{5:032x}"}
    assert [made.name for made in store.select(Selection(session=f"{5:032x}"))] == [f"{5:032x}"]
    assert list(store.select(Selection(session=f"{5:032x}", principal="p0"))) == []


def test_sessions_may_end_between_two_slices() -> None:
    store = MemorySessions(3 * SLICE)
    for number in range(2 * SLICE):
        store.add(session(f"{number:032x}"), now=NOW)
    found, start = store.scan((Selection(),), 0)
    for number in range(SLICE // 2, SLICE + 10):
        store.end(f"{number:032x}")
    store.add(session("b"), now=NOW)
    more, start = store.scan((Selection(),), start)
    assert start == -1
    assert {made.name for made in more} >= {f"{number:032x}" for number in range(SLICE + 10, 2 * SLICE)}
    assert len(found) == SLICE


def test_an_ended_sessions_key_is_overwritten() -> None:
    store = MemorySessions(2)
    store.add(session(), now=NOW)
    memory = store._records._map  # noqa: SLF001 - whether a secret is left behind shows nowhere else
    assert memory.find(KEY) >= 0
    store.end("a" * 32)
    assert memory.find(KEY) < 0


def test_a_sessions_key_is_not_in_its_repr() -> None:
    assert repr(KEY)[2:-1] not in repr(session())
    assert "principal" in repr(session())


def test_sessions_are_nothing_for_the_collector_to_visit() -> None:
    store = MemorySessions(1000)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1000):
        store.add(session(f"{number:032x}", principal=f"p{number}", opened_at=NOW + number % 9), now=NOW)
    gc.collect()
    assert len(gc.get_objects()) - before < 50


TIMES = st.integers(NOW, NOW + 60)


class StoreModel(RuleBasedStateMachine):
    """The store beside a dict of sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemorySessions(4)
        self.known: dict[str, tuple[Session, int]] = {}
        self.dead: set[str] = set()

    def live(self, name: str, now: int) -> bool:
        made, used = self.known[name]
        return name not in self.dead and now < min(made.expires_at, used + made.idle_s)

    @rule(name=st.sampled_from("abcdef"), now=TIMES, life=st.integers(1, 40), idle=st.integers(1, 40))
    def add(self, name: str, now: int, life: int, idle: int) -> None:
        made = session(name, opened_at=now, expires_at=now + life, idle_s=idle)
        if made.name not in self.known and len(self.known) >= 4:
            ended = [other for other in self.known if not self.live(other, now)]
            if not ended:
                with pytest.raises(GateError, match=r"session\.capacity"):
                    self.store.add(made, now=now)
                return
            self.store.add(made, now=now)
            self.forget([lapsed.name for lapsed, _ in self.store.sweep(now=now)], now)
        else:
            self.store.add(made, now=now)
        self.known[made.name] = made, now
        self.dead.discard(made.name)

    @rule(name=st.sampled_from("abcdef"), now=TIMES, use=st.booleans())
    def find(self, name: str, now: int, use: bool) -> None:
        name *= 32
        if name not in self.known:
            assert code(self.store, name, now) == "session.unknown"
        elif not self.live(name, now):
            assert code(self.store, name, now) in ("session.expired", "session.idle")
            self.dead.add(name)
        else:
            made, _ = self.known[name]
            assert self.store.find(name, now=now) == made
            if use:
                self.store.touch(name, now=now)
                self.known[name] = made, now

    @rule(name=st.sampled_from("abcdef"))
    def end(self, name: str) -> None:
        name *= 32
        ended = self.store.end(name)
        assert (ended is not None) == (name in self.known and name not in self.dead)
        self.known.pop(name, None)

    @rule(now=TIMES)
    def sweep(self, now: int) -> None:
        gone = [ended.name for ended, _ in self.store.sweep(now=now)]
        assert {name for name in self.known if not self.live(name, now)} == set(gone)
        self.forget(gone, now)

    def forget(self, names: list[str], now: int) -> None:
        for name in names:
            assert not self.live(name, now)
            del self.known[name]
            self.dead.discard(name)

    @invariant()
    def agree(self) -> None:
        assert len(self.store) == len(self.known)
        assert {made.name for made in self.store.select(Selection())} == set(self.known) - self.dead


TestStore = StoreModel.TestCase
TestStore.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
