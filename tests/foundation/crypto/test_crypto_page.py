"""docs/cryptography.md: its example runs, and what it says of the format is what is written."""

from __future__ import annotations

import re
from pathlib import Path

from ringfence.crypto.forms import ALGORITHMS

PAGE = (Path(__file__).parents[3] / "docs" / "cryptography.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(example, "cryptography.md", "exec"), {})  # noqa: S102 - the page's own example


def test_every_algorithm_whose_keys_are_kept_is_in_the_table() -> None:
    table = PAGE[PAGE.index("| algorithm | PEM and DER | JWK |") : PAGE.index("## References")]
    for algorithm in ALGORITHMS:
        assert algorithm.removeprefix("SLH-DSA-SHA2") in table
