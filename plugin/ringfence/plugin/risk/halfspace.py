"""Half-space trees: how isolated an observation lies among the last ones, without labels and in constant memory.

S. C. Tan, K. M. Ting, T. F. Liu, "Fast anomaly detection for streaming data", IJCAI 2011. Trees are random halvings of
the unit cube that no data shapes; they count how many observations of the last window fell into each half. A score is
the sum over the trees of the count where an observation falls, times two to that depth: low where few fall.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from math import log2
from typing import Final

from ringfence.plugin.risk.baseline import REGION, Baseline, Sample, weekday

DIMENSIONS: Final = 6
TREES: Final = 10
HEIGHT: Final = 8
WINDOW: Final = 250
NODES: Final = (1 << (HEIGHT + 1)) - 1
_INNER = (1 << HEIGHT) - 1
_SPARSE = WINDOW // 10
_RARE = 0.02


def place(sample: Sample, rate: float, baseline: Baseline) -> tuple[float, ...]:
    """An observation in the unit cube: hour, weekday, size, rate, and how usual its action and its region are."""
    counts = baseline.usual
    seen = max(1.0, baseline.seen)
    return (
        sample.now % 86_400 / 86_400,
        weekday(sample.now) / 6,
        min(1.0, log2(max(0, sample.size) + 1) / 40),
        min(1.0, log2(rate + 1) / 16),
        min(1.0, counts.get(sample.action, 0.0) / seen),
        min(1.0, counts.get(REGION + sample.region, 0.0) / seen),
    )


class HalfSpaceTrees:
    """`TREES` trees over points of `DIMENSIONS` numbers from 0 to 1. `uniform` draws numbers from 0 to 1."""

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._trees = [_grow(uniform) for _ in range(TREES)]
        self._reference = [array("l", bytes(8 * NODES)) for _ in range(TREES)]
        self._latest = [array("l", bytes(8 * NODES)) for _ in range(TREES)]
        self._seen = 0
        self._known: list[float] = []
        self._scores: list[float] = []

    def rarity(self, point: Sequence[float]) -> float:
        """Learns a point, and says which share of the window before were at least as isolated: 1.0 while it is cold."""
        score = 0.0
        for (axes, splits), reference, latest in zip(self._trees, self._reference, self._latest, strict=True):
            score += _descend(axes, splits, reference, latest, point)
        known = self._known
        share = (bisect_left(known, score) + 1) / (len(known) + 1) if known else 1.0
        insort(self._scores, score)
        self._seen += 1
        if self._seen == WINDOW:
            self._turn()
        return share

    def _turn(self) -> None:
        # The scores of the first window were made without any reference.
        cold = not any(self._reference[0])
        self._known = [] if cold else self._scores
        self._scores = []
        self._seen = 0
        self._reference = self._latest
        self._latest = [array("l", bytes(8 * NODES)) for _ in range(TREES)]


def points(rarity: float, most: int) -> int:
    """The points for an observation as rare as this: all of them for the rarest, none from one in fifty on."""
    return int(most * (1 - rarity / _RARE)) if rarity < _RARE else 0


def _grow(uniform: Callable[[], float]) -> tuple[list[int], list[float]]:
    """Which axis each inner node of a tree halves, and where."""
    centre = [uniform() for _ in range(DIMENSIONS)]
    reach = [2 * max(middle, 1 - middle) for middle in centre]
    spaces: list[tuple[list[float], list[float]]] = [
        (
            [middle - far for middle, far in zip(centre, reach, strict=True)],
            [middle + far for middle, far in zip(centre, reach, strict=True)],
        )
    ]
    axes: list[int] = []
    splits: list[float] = []
    for node in range(_INNER):
        low, high = spaces[node]
        axis = min(DIMENSIONS - 1, int(uniform() * DIMENSIONS))
        split = (low[axis] + high[axis]) / 2
        axes.append(axis)
        splits.append(split)
        spaces.append((low, [*high[:axis], split, *high[axis + 1 :]]))
        spaces.append(([*low[:axis], split, *low[axis + 1 :]], high))
    return axes, splits


def _descend(
    axes: Sequence[int], splits: Sequence[float], reference: array[int], latest: array[int], point: Sequence[float]
) -> float:
    """Counts the point along its path; the score of the node where the reference becomes sparse."""
    node = depth = 0
    score = -1.0
    while True:
        latest[node] += 1
        if score < 0 and (reference[node] <= _SPARSE or node >= _INNER):
            score = float(reference[node] << depth)
        if node >= _INNER:
            return score
        node = 2 * node + (1 if point[axes[node]] < splits[node] else 2)
        depth += 1
