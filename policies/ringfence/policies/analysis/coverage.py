"""Which policies and conditions a bundle's cases exercise: each policy deciding, each condition both ways."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ringfence.policies.analysis.conditions import Observer, Outcome
from ringfence.policies.bundle import Bundle, Policy


@dataclass(frozen=True, slots=True)
class ConditionCover:
    """One condition, and whether some case saw it true, and some case false."""

    text: str
    true: bool
    false: bool

    @property
    def full(self) -> bool:
        return self.true and self.false


@dataclass(frozen=True, slots=True)
class PolicyCover:
    """One policy: whether it held in a case, and did not in another, and its conditions."""

    policy: Policy
    held: bool
    failed: bool
    conditions: tuple[ConditionCover, ...]

    @property
    def full(self) -> bool:
        return self.held and all(one.full for one in self.conditions)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The coverage of a bundle by its own cases; ratios from 0 to 1."""

    policies: tuple[PolicyCover, ...]

    @property
    def policy_ratio(self) -> float:
        return _ratio([one.held for one in self.policies])

    @property
    def condition_ratio(self) -> float:
        ways = [way for policy in self.policies for one in policy.conditions for way in (one.true, one.false)]
        return _ratio(ways)

    @property
    def full(self) -> bool:
        return all(one.full for one in self.policies)


def measure(bundle: Bundle, own: Collection[str]) -> Coverage:
    """Runs every case of a bundle and looks at what it exercises of the policies in `own`: those it extends have cases
    of their own.
    """
    observer = Observer(bundle)
    seen = [observer.observe(case.query) for case in bundle.cases]
    covers = []
    for index, policy in enumerate(bundle.policies):
        if policy.id not in own:
            continue
        runs = [observed[index] for observed in seen]
        outcomes: dict[str, set[Outcome]] = {}
        for run in runs:
            for condition in run.conditions:
                outcomes.setdefault(condition.text, set()).add(condition.outcome)
        conditions = tuple(
            ConditionCover(text, Outcome.TRUE in found, Outcome.FALSE in found) for text, found in outcomes.items()
        )
        held = any(run.outcome is Outcome.TRUE for run in runs)
        covers.append(PolicyCover(policy, held, any(run.outcome is Outcome.FALSE for run in runs), conditions))
    return Coverage(tuple(covers))


def _ratio(covered: list[bool]) -> float:
    return round(sum(covered) / len(covered), 4) if covered else 1.0
