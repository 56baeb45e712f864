"""A revocation holds for sessions under way too, and what the log says has ended never comes back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import audit
from ringfence.audit import Operator, Record
from ringfence.audit.records import encode_data
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.port import Ended, Session
from ringfence.plugin.sessions.revocations import (
    REVOCATIONS,
    History,
    Of,
    Revocation,
    Revocations,
    begun_record,
    changed_record,
    closed_record,
    taken_record,
)

NOW = 1_800_000_000
DIGEST = "ab" * 32


def session(name: str = "s", **fields: Any) -> Session:
    made: dict[str, Any] = {
        "name": name,
        "principal": "p",
        "groups": (),
        "host": "h",
        "status": "affirming",
        "attestation_digest": DIGEST,
        "bundle_digest": DIGEST,
        "opened_at": NOW,
        "expires_at": NOW + 100,
        "idle_s": 50,
        "key": bytes(32),
    }
    return Session(**made | fields)


CASES: list[tuple[Of, str]] = [("session", "s"), ("principal", "p"), ("host", "h"), ("bundle", DIGEST)]


def history(*records: Record) -> History:
    seen = History()
    for record in records:
        encode_data(record)  # the log would take it
        seen.see(record)
    return seen


@pytest.mark.parametrize(("of", "value"), CASES)
def test_a_revocation_covers_what_it_names_and_was_opened_by_then(of: Of, value: str) -> None:
    revocation = Revocation(of, value, NOW)
    assert revocation.covers(session())
    assert revocation.covers(session(opened_at=NOW + 1)) == (of == "session")
    assert not revocation.covers(session("other", principal="q", host="i", bundle_digest="cd" * 32))


@pytest.mark.parametrize(("of", "value"), CASES)
def test_a_session_that_was_being_opened_is_refused(of: Of, value: str) -> None:
    held = Revocations(lifetime_s=900)
    held.add(Revocation(of, value, NOW), now=NOW)
    with pytest.raises(GateError, match=r"session\.revoked"):
        held.check(session())
    held.check(session("later", principal="q", host="i", bundle_digest="cd" * 32))
    if of != "session":
        held.check(session(opened_at=NOW + 1))


def test_revocations_are_bounded_and_forgotten_when_nothing_could_fall_under_them() -> None:
    held = Revocations(lifetime_s=900)
    for number in range(REVOCATIONS):
        held.add(Revocation("principal", str(number), NOW), now=NOW)
    held.add(Revocation("principal", "0", NOW + 1), now=NOW + 1)
    with pytest.raises(GateError, match=r"session\.revocation_capacity"):
        held.add(Revocation("principal", "p", NOW), now=NOW + 899)
    held.add(Revocation("principal", "p", NOW + 901), now=NOW + 901)
    with pytest.raises(GateError, match=r"session\.revoked"):
        held.check(session())


def test_a_revocation_of_nobody_is_none() -> None:
    with pytest.raises(ValueError, match="names whose"):
        Revocation("principal", "", NOW)


@pytest.mark.parametrize(("of", "value"), CASES)
def test_what_was_revoked_since_a_snapshot_does_not_come_back(of: Of, value: str) -> None:
    revoked = Revocation(of, value, NOW).record()
    seen = history(begun_record(1), taken_record(1, DIGEST), revoked)
    assert (seen.generation, seen.digest, seen.latest) == (1, DIGEST, 1)
    assert not seen.revives(session())
    assert seen.revives(session("t", principal="q", host="i", bundle_digest="cd" * 32))


@pytest.mark.parametrize("record", [closed_record(session(), Ended.TRUST), changed_record(session())])
def test_what_ended_while_a_snapshot_was_taken_does_not_come_back(record: Record) -> None:
    seen = history(begun_record(1), record, taken_record(1, DIGEST))
    assert not seen.revives(session())
    # What ended before it was begun is not in it, and need not be remembered.
    assert history(record, begun_record(1), taken_record(1, DIGEST)).revives(session())


def test_a_snapshot_that_was_not_completed_does_not_count() -> None:
    ended = closed_record(session(), Ended.REVOKED)
    seen = history(begun_record(1), taken_record(1, DIGEST), ended, begun_record(2))
    assert (seen.generation, seen.latest) == (1, 2)
    assert not seen.revives(session())


def test_a_snapshot_whose_beginning_the_log_has_lost_does_not_count() -> None:
    assert history(taken_record(3, DIGEST)).digest == ""
    assert history(begun_record(2), taken_record(3, DIGEST)).digest == ""


def test_an_end_that_names_nobody_is_held_against_everybody() -> None:
    closed = audit.Session(event="closed", session="", principal="")
    assert not history(begun_record(1), taken_record(1, DIGEST), closed).revives(session())


EVENTS = st.lists(st.sampled_from(["begin", "take", "end a", "end b", "other"]), max_size=20)


@given(EVENTS)
def test_nothing_that_ended_after_the_beginning_of_the_newest_snapshot_revives(events: list[str]) -> None:
    seen, generation, begun, ended = History(), 0, None, {}
    newest, newest_begun = 0, 0
    for step, event in enumerate(events):
        if event == "begin":
            generation, begun = generation + 1, step
            seen.see(begun_record(generation))
        elif event == "take" and begun is not None:
            newest, newest_begun, begun = generation, begun, None
            seen.see(taken_record(generation, DIGEST))
        elif event.startswith("end"):
            ended[event[-1]] = step
            seen.see(closed_record(session(event[-1]), Ended.CLOSED))
        elif event == "other":
            seen.see(Operator(event="trust", component="gateway"))
    assert seen.generation == newest
    for name in "ab":
        assert seen.revives(session(name)) == (ended.get(name, -1) < newest_begun)
