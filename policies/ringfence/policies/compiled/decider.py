"""The compiled policy decision point: a bundle's policies as Python code.

What the compiler does not cover it leaves to cedarpy for the whole bundle, and says which policy that is.
"""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.policies.bundle import Bundle
from ringfence.policies.compiled.compiling import Compiled, Decide, Uncovered, compile_bundle
from ringfence.policies.compiled.rules import RULES, Rules
from ringfence.policies.decision import Action, CommonContext, Query, Verdict
from ringfence.policies.engine import CedarDecider


class CompiledDecider:
    """Decides queries by one bundle, as `CedarDecider` does. Safe to share between threads."""

    def __init__(self, bundle: Bundle, rules: Rules = RULES, compiled: Compiled | None = None) -> None:
        """Compiles the bundle, unless that is done already (`compile_in_steps`)."""
        for step in () if compiled is not None else compile_bundle(bundle, rules):
            compiled = step
        if compiled is None:
            raise AssertionError("compiling ends with what came of it")
        self._digest = bundle.digest
        self._uncovered = compiled.uncovered
        self._programs: dict[type[CommonContext], Decide] = dict(compiled.programs)
        if compiled.uncovered:
            oracle = CedarDecider(bundle)
            self._programs = {action.context_type: oracle.decide for action in Action}

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle that decides, in hex."""
        return self._digest

    @property
    def uncovered(self) -> tuple[Uncovered, ...]:
        """The policies that the compiler does not cover. With one of them, cedarpy decides every query."""
        return self._uncovered

    def decide(self, query: Query) -> Verdict:
        """Answer a query; denies whatever cannot be evaluated."""
        # The context's type stands for the action, of which it is the only one: a class is found faster than a member
        # of an enumeration.
        return self._programs[type(query.context)](query)


def compile_in_steps(bundle: Bundle, rules: Rules = RULES) -> Iterator[CompiledDecider | None]:
    """Compiles in steps of a few milliseconds, yielding None after each and at last the decider.

    Between two steps the caller lets other threads have the interpreter.
    """
    for step in compile_bundle(bundle, rules):
        yield None if step is None else CompiledDecider(bundle, compiled=step)
