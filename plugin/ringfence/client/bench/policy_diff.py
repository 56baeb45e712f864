"""How long the semantic difference of two bundles of a hundred policies takes, witnesses and Cedar's word on them."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ringfence.policies.bundle import Bundle

POLICIES: Final = 100
ROUNDS: Final = 5


def measure(*, rounds: int = ROUNDS) -> dict[str, Any]:
    """The median time of `rounds` comparisons of two bundles, of which one policy was edited.

    `confirmed` says whether Cedar decided every witness as the difference has it, and one was found.
    """
    from ringfence.policies.analysis.diff import difference
    from ringfence.policies.analysis.requests import Oracle

    before, after = _bundle(""), _bundle("-*")
    difference(before, after)  # the solver's library loads with its first question
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        found = difference(before, after)
        seconds.append(time.perf_counter() - began)
    answers = [
        (Oracle(before).answer(one.request).allowed, Oracle(after).answer(one.request).allowed)
        for one in found.witnesses
    ]
    return {
        "seconds_100": round(statistics.median(seconds), 3),
        "policies": len(before.policies),
        "witnesses": len(found.witnesses),
        "confirmed": bool(answers) and answers == [(one.before.allowed, one.after.allowed) for one in found.witnesses],
    }


def _bundle(edit: str) -> Bundle:
    """The default bundle with forbids of its own for each team, up to a hundred policies."""
    from ringfence.policies.bundle import Policy
    from ringfence.policies.folder import open_bundled

    default = open_bundled("default")
    more = []
    for number in range(POLICIES - len(default.policies)):
        name = f"forbid-team-{number}"
        text = (
            f'@id("{name}") @description("of the benchmark") forbid (principal in Ringfence::Group::"team-{number}", '
            f"action, resource) when {{ context.risk > {number % 60} && "
            f'context.attributes.contains("grade={number % 7}") || '
            f'context.tenant like "t{number}-*{edit if number == 42 else ""}" }};'
        )
        more.append(Policy(name, "of the benchmark", "forbid", "policies/teams.cedar", number + 1, text))
    return replace(default, policies=(*default.policies, *more))
