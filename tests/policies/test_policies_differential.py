"""The compiled engine and cedarpy answer alike: decision, deciding policies, and which policies failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from ringfence.policies.bundle import Bundle
from ringfence.policies.compiled.decider import CompiledDecider
from ringfence.policies.compiled.programs import Program
from ringfence.policies.compiled.rules import RULES, Rules
from ringfence.policies.compiled.shortcuts import SHORTCUTS
from ringfence.policies.folder import open_bundled
from tests.policies.differential.cedar_worlds import World, world
from tests.policies.differential.corners import EXPRESSIONS, corners
from tests.policies.differential.faults import FAULTS
from tests.policies.differential.query_corners import query_corners
from tests.policies.differential.query_worlds import QueryWorld, query_world, same
from tests.policies.differential.recording import WAYS, recording

WORLDS = 330
QUERY_WORLDS = 100


@pytest.fixture(scope="module")
def default() -> Bundle:
    return open_bundled("default")


@pytest.fixture(scope="module")
def worlds() -> Sequence[World]:
    return [corners(), *map(world, range(WORLDS))]


@pytest.fixture(scope="module")
def query_worlds(default: Bundle) -> Sequence[QueryWorld]:
    return [query_corners(default), *(query_world(seed, default) for seed in range(QUERY_WORLDS))]


def all_of(*asked: Sequence[World] | Sequence[QueryWorld]) -> Iterator[World | QueryWorld]:
    for some in asked:
        yield from some


def differs(asked: World | QueryWorld, rules: Rules) -> bool:
    """Whether any answer is not cedarpy's."""
    if isinstance(asked, World):
        program = Program(asked.policies, rules)
        return any(
            program.decide(request) != expected
            for request, expected in zip(asked.requests, asked.expected, strict=True)
        )
    decider = CompiledDecider(asked.bundle, rules)
    return bool(decider.uncovered) or any(
        not same(decider.decide(query), expected) for query, expected in zip(asked.queries, asked.expected, strict=True)
    )


def test_five_thousand_requests_are_answered_as_cedarpy_does(
    worlds: Sequence[World], query_worlds: Sequence[QueryWorld]
) -> None:
    assert [number for number, asked in enumerate(all_of(worlds, query_worlds)) if differs(asked, RULES)] == []

    outcomes = [(answer.allowed, bool(answer.errors)) for asked in worlds[1:] for answer in asked.expected]
    outcomes += [(answer.allowed, bool(answer.errors)) for asked in query_worlds[1:] for answer in asked.expected]
    assert len(outcomes) >= 5_000
    assert sum(allowed for allowed, _ in outcomes) >= len(outcomes) / 4
    assert sum(failed for _, failed in outcomes) >= len(outcomes) / 20


def test_every_operator_is_seen_both_ways(worlds: Sequence[World], query_worlds: Sequence[QueryWorld]) -> None:
    rules, seen = recording()

    assert not any(differs(asked, rules) for asked in all_of(worlds[:100], query_worlds[:20]))

    assert {name: ways - seen[name] for name, ways in WAYS.items() if not ways <= seen[name]} == {}
    assert [place for place in SHORTCUTS if seen[place] != {"True", "False"}] == []


def test_corners_are_decided_and_not_only_evaluated(worlds: Sequence[World]) -> None:
    [answer] = worlds[0].expected
    assert answer.allowed
    assert len(EXPRESSIONS) / 5 < len(answer.errors) < len(EXPRESSIONS) / 2
    assert len(answer.reasons) > len(EXPRESSIONS) / 5


def test_there_are_fifty_faults() -> None:
    assert len(FAULTS) >= 50


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_the_compiler_is_caught(
    fault: str, worlds: Sequence[World], query_worlds: Sequence[QueryWorld]
) -> None:
    def caught(asked: World | QueryWorld) -> bool:
        try:
            return differs(asked, FAULTS[fault])
        except (AttributeError, TypeError, ValueError):  # An operator that forgot to look at its operands.
            return True

    assert any(map(caught, all_of(worlds[:1], query_worlds[:1], worlds, query_worlds)))
