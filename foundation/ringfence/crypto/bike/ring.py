"""Arithmetic in GF(2)[x]/(x^r - 1) on Python integers: products with sparse polynomials, and inverses.

Nothing here takes constant time. That is why a BIKE secret may only add to another one, from a key used once.
"""

from __future__ import annotations

from collections.abc import Iterable


def polynomial(indices: Iterable[int]) -> int:
    """The polynomial whose coefficients at `indices` are 1."""
    value = 0
    for index in indices:
        value |= 1 << index
    return value


def support(value: int) -> list[int]:
    """The indices of the coefficients that are 1, ascending."""
    indices = []
    while value:
        lowest = value & -value
        indices.append(lowest.bit_length() - 1)
        value ^= lowest
    return indices


def multiply(sparse: Iterable[int], dense: int, r: int) -> int:
    """The product of the polynomial with its ones at `sparse` and `dense`."""
    product = 0
    for index in sparse:
        product ^= dense << index
    return (product & ((1 << r) - 1)) ^ (product >> r)


def invert(value: int, r: int) -> int:
    """The inverse of a polynomial of odd weight, by the extended Euclidean algorithm with `x^r - 1`.

    Raises `ValueError` where there is none. For BIKE's r, which are primes with 2 as a primitive root, every odd
    weight but that of the all-one polynomial has one.
    """
    low, high = value, (1 << r) | 1
    low_factor, high_factor = 1, 0
    low_size, high_size = low.bit_length(), high.bit_length()
    while low_size > 1:
        shift = high_size - low_size
        if shift < 0:
            low, high, low_factor, high_factor = high, low, high_factor, low_factor
            low_size, high_size, shift = high_size, low_size, -shift
        high ^= low << shift
        high_factor ^= low_factor << shift
        high_size = high.bit_length()
        if not high_size:
            break
        if high_size < low_size:
            low, high, low_factor, high_factor = high, low, high_factor, low_factor
            low_size, high_size = high_size, low_size
    if low != 1:
        raise ValueError("the polynomial has no inverse")
    return (low_factor & ((1 << r) - 1)) ^ (low_factor >> r)
