"""Half-space trees: rare points are rare, memory is constant, and nobody waits for them."""

from __future__ import annotations

import random

from msgspec.structs import replace

from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.baseline import Sample
from ringfence.plugin.risk.halfspace import DIMENSIONS, WINDOW, HalfSpaceTrees, place, points
from ringfence.plugin.risk.settings import RiskSettings
from tests.plugin.risk.risk_bench import USUAL, features_of, known


def warmed(seed: int = 1) -> tuple[HalfSpaceTrees, random.Random]:
    draw = random.Random(seed)  # noqa: S311 - no secret
    trees = HalfSpaceTrees(draw.random)
    for _ in range(3 * WINDOW):
        trees.rarity([0.5 + 0.05 * draw.gauss(0, 1) for _ in range(DIMENSIONS)])
    return trees, draw


def test_a_cold_forest_finds_nothing_rare() -> None:
    trees = HalfSpaceTrees(random.Random(1).random)  # noqa: S311 - no secret
    assert {trees.rarity([0.5] * DIMENSIONS) for _ in range(2 * WINDOW)} == {1.0}


def test_a_point_apart_is_rarer_than_the_others() -> None:
    for seed in range(5):
        trees, draw = warmed(seed)
        usual = [trees.rarity([0.5 + 0.05 * draw.gauss(0, 1) for _ in range(DIMENSIONS)]) for _ in range(40)]
        apart = trees.rarity([0.02, 0.98, 0.98, 0.02, 0.98, 0.02])
        assert apart < 0.02
        assert sum(usual) / len(usual) > 0.3


def test_points_rise_with_rarity_alone_and_end_at_one_in_fifty() -> None:
    values = [points(rarity / 1000, 15) for rarity in range(1, 1001)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 14
    assert set(values[19:]) == {0}


def test_a_place_lies_in_the_unit_cube_whatever_is_asked() -> None:
    assessor, now = known()
    baseline = assessor.baseline("alice")
    assert baseline is not None
    for size in (-1, 0, 2**62):
        for rate in (0.0, 1e9):
            for name in ("SubmitJob", "?", ""):
                where = place(Sample(name, size, name, now), rate, baseline)
                assert len(where) == DIMENSIONS
                assert all(0 <= axis <= 1 for axis in where)


def test_what_nobody_looks_at_is_dropped_and_holds_nobody_up() -> None:
    assessor = Assessor(RiskSettings(queue=8))
    for minute in range(100):
        assessor.assess(replace(USUAL, now=USUAL.now + 60 * minute))
    assert len(assessor.observations) == 8
    newest = assessor.observations[-1][1]
    assert newest.now == USUAL.now + 60 * 98


def test_the_points_of_the_trees_are_in_the_next_score_until_they_look_again() -> None:
    assessor, now = known()
    assessor.forest("alice", 9)
    assessor.forest("nobody", 9)
    assert features_of(assessor.assess(replace(USUAL, now=now))) == {"forest": 9}
    assessor.forest("alice", 0)
    assert features_of(assessor.assess(replace(USUAL, now=now))) == {}
