"""A change of trust, policy, risk or pins ends or narrows the sessions it touches, and no others."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions.ending import (
    PENDING,
    BundleReplaced,
    Change,
    Endings,
    FactorWithdrawn,
    Outcome,
    PinRemoved,
    PrincipalLocked,
    Revoked,
    RiskRaised,
    TrustChanged,
    affected,
)
from ringfence.plugin.sessions.port import Ended, Selection, Session
from ringfence.plugin.sessions.store import MemorySessions

NOW = 1_800_000_000


def session(name: str = "a", **fields: Any) -> Session:
    made: dict[str, Any] = {
        "name": name,
        "principal": "p",
        "groups": (),
        "host": "h",
        "status": "affirming",
        "attestation_digest": "digest",
        "bundle_digest": "b",
        "opened_at": NOW,
        "expires_at": NOW + 100,
        "idle_s": 50,
        "key": bytes(32),
        "factors": (("mtls", 0), ("webauthn", NOW + 50)),
    }
    return Session(**made | fields)


@pytest.mark.parametrize(
    ("change", "selection", "after"),
    [
        (TrustChanged("h", "contraindicated"), Selection(host="h"), Ended.TRUST),
        (TrustChanged("h", ""), Selection(host="h"), Ended.TRUST),
        (TrustChanged("h", "affirming"), Selection(host="h"), session()),
        (BundleReplaced("b"), Selection(bundle_digest="b"), Ended.POLICY),
        (PrincipalLocked("p"), Selection(principal="p"), Ended.RISK),
        (PinRemoved("p"), Selection(principal="p"), Ended.PRINCIPAL),
        (RiskRaised("p", NOW + 5), Selection(principal="p"), session(expires_at=NOW + 5)),
        (RiskRaised("p", NOW + 500), Selection(principal="p"), session()),
        (FactorWithdrawn("p", "webauthn"), Selection(principal="p"), session(factors=(("mtls", 0),))),
        (FactorWithdrawn("p", "totp"), Selection(principal="p"), session()),
        (Revoked(Selection(host="h"), NOW), Selection(host="h"), Ended.REVOKED),
        (Revoked(Selection(host="h"), NOW - 1), Selection(host="h"), session()),
    ],
)
def test_what_a_change_does(change: Change, selection: Selection, after: Session | Ended) -> None:
    effect = affected(change)
    assert effect.selection == selection
    assert effect.on(session()) == after


def test_a_session_without_a_factor_left_ends() -> None:
    assert affected(FactorWithdrawn("p", "mtls")).on(session(factors=(("mtls", 0),))) is Ended.PRINCIPAL
    assert affected(FactorWithdrawn("p", "mtls")).on(session(factors=())) == session(factors=())


def finish(endings: Endings) -> list[list[Outcome]]:
    steps = []
    while endings.pending:
        steps.append(endings.step())
    return steps


def test_changes_are_carried_out_together_in_bounded_steps() -> None:
    store = MemorySessions(4000)
    for number in range(4000):
        made = session(f"{number:032x}", principal=f"p{number % 10}", host=f"h{number % 3}")
        store.add(made, now=NOW)
    # A clock by which every slice takes longer than a step may.
    endings = Endings(store, ticks_ns=itertools.count(0, 10_000_000).__next__)
    endings.post(PrincipalLocked("p3"))
    endings.post(TrustChanged("h1", "warning"))
    endings.post(FactorWithdrawn("p4", "mtls"))
    endings.post(Revoked(Selection(session=f"{5:032x}"), NOW))
    steps = finish(endings)
    assert max(len(step) for step in steps) <= 257
    outcomes = {outcome.before.name: outcome.after for step in steps for outcome in step}
    for number in range(4000):
        after = outcomes.get(f"{number:032x}")
        if number == 5:
            assert after is Ended.REVOKED
        elif number % 10 == 3:
            assert after is Ended.RISK
        elif number % 3 == 1:
            assert after is Ended.TRUST
        elif number % 10 == 4:
            assert isinstance(after, Session)
            assert store.find(after.name, now=NOW).factors == (("webauthn", NOW + 50),)
        else:
            assert after is None
    assert len(store) == 4000 - sum(1 for after in outcomes.values() if isinstance(after, Ended))


def test_a_change_during_a_pass_meets_every_session() -> None:
    store = MemorySessions(1000)
    for number in range(1000):
        store.add(session(f"{number:032x}", principal=f"p{number % 2}"), now=NOW)
    endings = Endings(store, ticks_ns=itertools.count(0, 10_000_000).__next__)
    endings.post(PrincipalLocked("p0"))
    endings.step()
    endings.post(PrincipalLocked("p1"))
    finish(endings)
    assert len(store) == 0


def test_changes_that_wait_are_bounded_and_the_same_one_waits_once() -> None:
    endings = Endings(MemorySessions(1), ticks_ns=lambda: 0)
    for number in range(PENDING):
        endings.post(PrincipalLocked(str(number)))
    endings.post(PrincipalLocked("0"))
    with pytest.raises(GateError, match=r"session\.endings_capacity"):
        endings.post(PrincipalLocked("one more"))


def test_no_change_touches_all_sessions_by_an_empty_name() -> None:
    with pytest.raises(ValueError, match="never all"):
        Endings(MemorySessions(1), ticks_ns=lambda: 0).post(PrincipalLocked(""))
