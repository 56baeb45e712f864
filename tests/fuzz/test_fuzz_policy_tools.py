"""The decoders of the policy commands refuse any bytes in Ringfence's own words; `make fuzz` goes on for longer."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import RingfenceError

SPEC = importlib.util.spec_from_file_location(
    "fuzz_targets_policy_tools", Path(__file__).with_name("targets_policy_tools.py")
)
assert SPEC is not None
assert SPEC.loader is not None
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)


@pytest.mark.parametrize("name", sorted(MODULE.TARGETS))
@given(data=st.data())
def test_any_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    decode, (seed, *_) = MODULE.TARGETS[name]
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, len(seed)))
    piece = data.draw(st.binary(max_size=8) | st.text(max_size=4).map(str.encode))
    with contextlib.suppress(RingfenceError):
        decode(seed[:start] + piece + seed[end:])
