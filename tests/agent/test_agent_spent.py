"""Spent ids against a model: whatever the clock does, an id is accepted once, and a new one is not refused."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from ringfence.agent.spent import SpentIds

EXPIRY = st.integers(0, 40)


class SpentModel(RuleBasedStateMachine):
    """An id stands for a signed thing, so it always comes with the same expiry."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = SpentIds()
        self.accepted: set[int] = set()
        self.latest = 0

    @rule(expires_at=EXPIRY, number=st.integers(0, 2), now=EXPIRY)
    def spend(self, expires_at: int, number: int, now: int) -> None:
        identity = 3 * expires_at + number
        self.latest = max(self.latest, now)
        accepted = self.spent.spend(str(identity), expires_at=expires_at, now=now)
        assert accepted == (identity not in self.accepted and expires_at >= self.latest)
        if accepted:
            self.accepted.add(identity)
        # Only what has not expired takes memory.
        assert len(self.spent) == sum(identity // 3 >= self.latest for identity in self.accepted)


TestSpentIds = SpentModel.TestCase
TestSpentIds.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
