"""The factor "behaviour": a principal does what it usually does. It never proves who somebody is by itself."""

from __future__ import annotations

from typing import Final, Protocol

from ringfence.plugin.identity.errors import BEHAVIOUR_UNFAMILIAR, IdentityError, malformed
from ringfence.plugin.identity.port import Binding, Proven

NAME: Final = "behaviour"


class BehaviourScore(Protocol):
    """How familiar a principal's recent behaviour is. In memory, without waiting."""

    def familiarity(self, principal: str, *, now: int) -> int:
        """0 (nothing like it, or nobody that is known) to 100."""
        ...


class BehaviourFactor:
    """Proves the session's principal where its familiarity is at least `familiarity`, for `lifetime_s`.

    It is bound to no key, so with it alone nobody is anybody. The evidence is empty: a caller has no say in it.
    """

    name: Final = NAME

    def __init__(self, score: BehaviourScore, *, familiarity: int, lifetime_s: int) -> None:
        self._score = score
        self._familiarity = familiarity
        self._lifetime_s = lifetime_s

    async def verify(self, evidence: bytes, binding: Binding, *, now: int) -> Proven:
        if evidence:
            raise malformed("The evidence of behaviour", "it must be empty", field="behaviour")
        # What is not authenticated must not be measured against the principal that it claims to be.
        score = self._score.familiarity(binding.principal, now=now) if binding.principal else 0
        if score < self._familiarity:
            raise IdentityError(
                BEHAVIOUR_UNFAMILIAR,
                f"This is not how the principal usually behaves ({score} of {self._familiarity}).",
                field="behaviour",
                hint="Show another factor.",
            )
        return Proven(NAME, binding.principal, False, now + self._lifetime_s, attributes=(f"familiarity={score}",))
