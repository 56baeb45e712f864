"""Growing an isolation forest with scikit-learn, which the extra `risk` brings. Never on the request path."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from ringfence.plugin.risk.errors import TOO_FEW_DECISIONS, RiskError
from ringfence.plugin.risk.forest import Forest, Tree
from ringfence.plugin.risk.history import COLUMNS, Observation

LEAST: Final = 256
SAMPLES: Final = 256
_ALARM = 0.01


def grow(observations: Sequence[Observation], *, trees: int, seed: int) -> Forest:
    """A forest of `trees` trees from what was allowed; what was refused teaches nothing.

    Raises `RiskError` risk.too_few_decisions for fewer than `LEAST` allowed decisions.
    """
    allowed = [observation for observation in observations if observation.allowed]
    if len(allowed) < LEAST:
        raise RiskError(
            TOO_FEW_DECISIONS,
            f"The log has {len(allowed)} allowed decisions with what policies were asked, and {LEAST} are needed.",
            field="--log",
            hint="Let the gateway run for longer.",
        )
    from sklearn.ensemble import IsolationForest

    rows = [list(observation.row) for observation in allowed]
    model: Any = IsolationForest(n_estimators=trees, max_samples=SAMPLES, random_state=seed)
    model.fit(rows)
    grown = tuple(_tree(estimator.tree_) for estimator in model.estimators_)
    usual = tuple(float(median(column)) for column in zip(*rows, strict=True))
    until = max(observation.at for observation in allowed)
    anomalies = sorted(-float(score) for score in model.score_samples(rows))
    threshold = anomalies[min(len(anomalies) - 1, int(len(anomalies) * (1 - _ALARM)))]
    return Forest(COLUMNS, SAMPLES, usual, threshold, len(allowed), max(0, until), grown)


def _tree(tree: Any) -> Tree:
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    columns = (max(-1, column) for column in tree.feature.tolist())
    return Tree(
        tuple(left), tuple(right), tuple(columns), tuple(tree.threshold.tolist()), tuple(tree.n_node_samples.tolist())
    )
