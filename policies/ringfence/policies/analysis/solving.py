"""Asking the solver for a request, and for one that looks as ordinary as it can."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, Final

import z3

from ringfence.policies.analysis.logic import Truth
from ringfence.policies.analysis.requests import Asked
from ringfence.policies.analysis.unknowns import Unknowns

TIMEOUT_MS: Final = 5_000
"""How long the solver may think about one question."""
MAX_TRIES: Final = 20
"""How many of a solver's answers may turn out to be no request."""
MAX_GUESSES: Final = 4
"""How many requests are tried where it depends on what is not understood whether they meet the condition."""


class Found(enum.Enum):
    """Why there is no request."""

    NONE = "there is none"
    UNKNOWN = "the solver gave up"


class Question:
    """One condition on a request, to be asked for requests that meet it."""

    def __init__(
        self, unknowns: Unknowns, schema: list[Truth], condition: Truth, *, timeout_ms: int = TIMEOUT_MS
    ) -> None:
        self._unknowns = unknowns
        self._solver = z3.Solver()
        self._solver.set("timeout", timeout_ms)
        self._solver.add(*schema, condition)
        self._reachable = False

    def within_ranges(self) -> None:
        """Leave only requests that a gateway could ask."""
        self._solver.add(*self._unknowns.ranges())
        self._reachable = True

    def possible(self) -> Found | None:
        """None where some request meets the condition."""
        outcome = self._solver.check()
        if outcome == z3.sat:
            return None
        return Found.NONE if outcome == z3.unsat else Found.UNKNOWN

    def possible_with(self, condition: Truth) -> Found | None:
        """The same where a further condition has to be met too."""
        if condition is False:
            return Found.NONE
        self._solver.push()
        self._solver.add(condition)
        try:
            return self.possible()
        finally:
            self._solver.pop()

    def requests(self) -> Iterator[Asked]:
        """Requests that meet the condition, as ordinary as can be; each further one differs in what is unclear.

        Ends after a few where what is asked about is not fully understood.
        """
        guesses = 0
        for _ in range(MAX_TRIES):
            if self._solver.check() != z3.sat:
                return
            impossible = self._unknowns.impossible(self._solver.model(), {})
            if impossible is not None:
                self._solver.add(impossible)
                continue
            # Only now: making a request ordinary takes many questions.
            model = self._ordinary()
            request = self._unknowns.request(model, reachable=self._reachable)
            if isinstance(request, Asked):
                yield request
                guesses += 1
                if not self._unknowns.opaque or guesses == MAX_GUESSES:
                    return
                self._solver.add(self._otherwise(model))
            else:
                self._solver.add(request)

    def _ordinary(self) -> Any:
        """A model that keeps to the ordinary request in each fact where it can."""
        model = self._solver.model()
        self._solver.push()
        waiting = [self._unknowns.ordinary()]
        while waiting:
            facts = waiting.pop()
            self._solver.push()
            self._solver.add(*facts)
            if self._solver.check() == z3.sat:
                model = self._solver.model()
                continue
            self._solver.pop()
            if len(facts) > 1:
                half = len(facts) // 2
                waiting += [facts[half:], facts[:half]]
        while self._solver.num_scopes():
            self._solver.pop()
        return model

    def _otherwise(self, model: Any) -> Truth:
        """That something unclear is otherwise, or the request is for another resource or by someone else."""
        unclear = [term for pair in self._unknowns.opaque.values() for term in pair]
        return z3.Or([term != model.eval(term, model_completion=True) for term in unclear])
