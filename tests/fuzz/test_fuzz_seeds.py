"""Every decoder over its seeds and over what becomes of them: the same bytes in every run; atheris goes further."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.target import one_input
from tools.fuzz import known_targets, targets_in

KNOWN = known_targets()


@pytest.mark.parametrize("name", KNOWN)
def test_no_decoder_raises_anything_unexpected_near_its_seeds(name: str) -> None:
    target = targets_in(KNOWN[name])[name]
    chance = random.Random(name)  # noqa: S311 - to repeat, not to be secret
    for seed in target.seeds:
        for _ in range(60):
            data = bytearray(seed)
            for _ in range(chance.randint(0, 4)):
                at = chance.randint(0, len(data))
                data[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            one_input(target, bytes(data))
