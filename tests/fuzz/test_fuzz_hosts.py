"""The adapters' decoders over their seeds and over what becomes of them; atheris goes further."""

from __future__ import annotations

import contextlib
import random

import pytest

from ringfence.errors import RingfenceError
from tests.fuzz.targets_hosts import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_decoder_of_a_host_raises_anything_unexpected(name: str) -> None:
    target = TARGETS[name]
    chance = random.Random(name)  # noqa: S311 - the same bytes in every run
    for seed in target.seeds:
        for _ in range(300):
            data = bytearray(seed)
            for _ in range(chance.randint(0, 4)):
                at = chance.randint(0, len(data))
                data[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            with contextlib.suppress(RingfenceError):
                target.decode(bytes(data))
