"""An isolation forest as values: grown elsewhere, signed, and evaluated here without any library.

F. T. Liu, K. M. Ting, Z.-H. Zhou, "Isolation Forest", ICDM 2008. An observation's anomaly is 2 to the power of minus
its mean path length over that of an unsuccessful search among as many samples: near 1 it stands alone, at 0.5 and below
it is like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log
from typing import Annotated, Final

import msgspec

from ringfence.plugin.risk.history import COLUMNS
from ringfence.plugin.risk.state import malformed

KIND: Final = "forest"
MAX_TREES: Final = 1000
MAX_NODES: Final = 4096
_EULER = 0.5772156649015329

_Index = Annotated[int, msgspec.Meta(ge=-1, lt=MAX_NODES)]
_Nodes = msgspec.Meta(min_length=1, max_length=MAX_NODES)


class Tree(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A tree by its nodes, the root first. A leaf has -1 for both children; another node sends a row whose `column` is
    at most its `threshold` to the left. `samples` is how many samples of the training reached a node."""

    left: Annotated[tuple[_Index, ...], _Nodes]
    right: Annotated[tuple[_Index, ...], _Nodes]
    column: Annotated[tuple[_Index, ...], _Nodes]
    threshold: Annotated[tuple[float, ...], _Nodes]
    samples: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=2**31)], ...], _Nodes]

    def __post_init__(self) -> None:
        nodes = len(self.left)
        if not nodes == len(self.right) == len(self.column) == len(self.threshold) == len(self.samples):
            raise ValueError("its columns differ in length")
        for node, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            if left == right == -1:
                continue
            # Children come after their parent, so that every path ends.
            if not (node < left < nodes and node < right < nodes and 0 <= self.column[node] < len(COLUMNS)):
                raise ValueError("its nodes are no tree")
        if not all(map(isfinite, self.threshold)):
            raise ValueError("a threshold is no number")


class Forest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A forest over rows of `COLUMNS`.

    `samples` is how many rows each tree was grown from, `usual` the median row, and `threshold` the anomaly that one
    in a hundred rows of the training reached. `trained_on` counts the rows, `until` is the time of the newest.
    """

    columns: tuple[str, ...]
    samples: Annotated[int, msgspec.Meta(ge=2, le=2**31)]
    usual: tuple[float, ...]
    threshold: float
    trained_on: Annotated[int, msgspec.Meta(ge=1)]
    until: Annotated[int, msgspec.Meta(ge=0)]
    trees: Annotated[tuple[Tree, ...], msgspec.Meta(min_length=1, max_length=MAX_TREES)]

    def __post_init__(self) -> None:
        if self.columns != COLUMNS or len(self.usual) != len(COLUMNS):
            raise ValueError("it looks at other columns")
        if not all(map(isfinite, (*self.usual, self.threshold))):
            raise ValueError("a number is none")

    def anomaly(self, row: Sequence[float]) -> float:
        """How anomalous a row is, from 0 to 1."""
        depth = sum(_path(tree, row) for tree in self.trees)
        return float(2.0 ** (-depth / (len(self.trees) * _search(self.samples))))

    def because(self, row: Sequence[float]) -> list[tuple[str, float]]:
        """What makes a row anomalous: each column, and by how much the anomaly would be less with its usual value."""
        here = self.anomaly(row)
        found = []
        for index, name in enumerate(COLUMNS):
            usual = (*row[:index], self.usual[index], *row[index + 1 :])
            found.append((name, here - self.anomaly(usual)))
        return sorted(found, key=lambda pair: -pair[1])


_DECODER = msgspec.msgpack.Decoder(Forest)


def encode_forest(forest: Forest) -> bytes:
    """The payload of a forest's state."""
    return msgspec.msgpack.encode(forest)


def decode_forest(data: bytes) -> Forest:
    """The forest of a payload; `RiskError` risk.state_malformed."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed("its payload is no forest") from None


def _path(tree: Tree, row: Sequence[float]) -> float:
    left, right, column, threshold = tree.left, tree.right, tree.column, tree.threshold
    node = depth = 0
    while left[node] != -1:
        node = left[node] if row[column[node]] <= threshold[node] else right[node]
        depth += 1
    return depth + _search(tree.samples[node])


def _search(samples: int) -> float:
    """The mean path length of an unsuccessful search in a binary search tree of so many samples."""
    if samples <= 1:
        return 0.0
    if samples == 2:
        return 1.0
    return 2.0 * (log(samples - 1.0) + _EULER) - 2.0 * (samples - 1.0) / samples
