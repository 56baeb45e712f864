"""The Black-Gray-Flip decoder: the error that a syndrome comes from, or one that is not it.

Source: BIKE specification v5.1 (2022-10-10), its decoder BGF with five iterations and tau 3, after Drucker, Gueron and
Kostic, "QC-MDPC decoders with several shades of gray". Unsatisfied checks are counted for all positions at once:
counters are kept in bit slices, one integer for each binary digit, and added up by carry-save adders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ringfence.crypto.bike.parameters import Parameters
from ringfence.crypto.bike.ring import multiply, polynomial, support

_ITERATIONS: Final = 5
_TAU: Final = 3


def decode(level: Parameters, blocks: Sequence[Sequence[int]], syndrome: int) -> tuple[int, int]:
    """The two halves of the error for `syndrome`; `blocks` holds the supports of `h0` and `h1`.

    It always runs all its iterations. What it gives for a syndrome of another error than a light one is not defined:
    the caller checks it by encrypting again.
    """
    errors = [0, 0]
    current = syndrome
    majority = (level.d + 1) // 2 + 1
    for iteration in range(_ITERATIONS):
        threshold = level.threshold(current.bit_count())
        black, gray = [0, 0], [0, 0]
        for side, block in enumerate(blocks):
            slices = _unsatisfied(level, block, current)
            black[side] = _at_least(slices, threshold, level.mask)
            gray[side] = _at_least(slices, threshold - _TAU, level.mask) & ~black[side]
            errors[side] ^= black[side]
        current = _left_over(level, blocks, syndrome, errors)
        if iteration > 0:
            continue
        for candidates in (black, gray):
            for side, block in enumerate(blocks):
                errors[side] ^= candidates[side] & _at_least(_unsatisfied(level, block, current), majority, level.mask)
            current = _left_over(level, blocks, syndrome, errors)
    return errors[0], errors[1]


def _left_over(level: Parameters, blocks: Sequence[Sequence[int]], syndrome: int, errors: Sequence[int]) -> int:
    for block, error in zip(blocks, errors, strict=True):
        # A light error is cheaper to multiply by its own support; one of a failed decoding may be heavy.
        sparse, dense = (support(error), polynomial(block)) if error.bit_count() < level.d else (block, error)
        syndrome ^= multiply(sparse, dense, level.r)
    return syndrome


def _unsatisfied(level: Parameters, block: Sequence[int], syndrome: int) -> list[int]:
    """Bit slices of how many unsatisfied checks each position of `block` takes part in, lowest digit first."""
    doubled = syndrome | (syndrome << level.r)
    mask = level.mask
    columns: list[list[int]] = [[]]
    for index in block:
        columns[0].append((doubled >> index) & mask)
        place = 0
        while len(columns[place]) == 3:
            first, second, third = columns[place]
            either = first ^ second
            columns[place] = [either ^ third]
            if place + 1 == len(columns):
                columns.append([])
            columns[place + 1].append((first & second) | (either & third))
            place += 1
    return _settle(columns)


def _settle(columns: list[list[int]]) -> list[int]:
    slices: list[int] = []
    carry = 0
    for column in columns:
        first, second = (*column, 0, 0)[:2]
        either = first ^ second
        slices.append(either ^ carry)
        carry = (first & second) | (either & carry)
    return [*slices, carry]


def _at_least(slices: Sequence[int], threshold: int, mask: int) -> int:
    """The positions whose counter is `threshold` or more."""
    reached = mask
    for place, digit in enumerate(slices):
        reached = digit & reached if threshold >> place & 1 else digit | reached
    return reached if threshold >> len(slices) == 0 else 0
