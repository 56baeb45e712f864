"""The fuzz targets of this part begin from inputs that are right, and so reach what lies behind the first check."""

from __future__ import annotations

import pytest

from tests.fuzz.targets_envoy import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_starts_from_what_is_accepted(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].decode(seed)
