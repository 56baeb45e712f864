"""The policy engine's fuzz targets: what Hypothesis makes of their seeds raises only our own errors."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import RingfenceError
from tests.fuzz.targets_engine import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_decode(name: str) -> None:
    decode, seeds = TARGETS[name]
    for seed in seeds:
        with contextlib.suppress(RingfenceError):
            decode(seed)


@given(name=st.sampled_from(sorted(TARGETS)), data=st.data())
def test_any_bytes_decode_or_are_refused(name: str, data: st.DataObject) -> None:
    decode, seeds = TARGETS[name]
    seed = data.draw(st.sampled_from(seeds))
    at = data.draw(st.integers(0, len(seed)))
    changed = seed[:at] + data.draw(st.binary(max_size=8)) + seed[at + data.draw(st.integers(0, 4)) :]
    with contextlib.suppress(RingfenceError):
        decode(changed)
