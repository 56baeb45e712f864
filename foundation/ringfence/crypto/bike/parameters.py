"""The three parameter sets of BIKE, and the polynomials they are about as Python integers.

Source: BIKE specification v5.1 (2022-10-10), its parameters and the thresholds of its decoder. A polynomial of
GF(2)[x]/(x^r - 1) is an integer: bit `i` is the coefficient of `x^i`, and its bytes are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SEED_SIZE: Final = 32
SECRET_SIZE: Final = 32
_INDEX_SIZE: Final = 4
_SCALE: Final = 10**8


@dataclass(frozen=True, slots=True)
class Parameters:
    """One level: block length `r` in bits, column weight `d` of either block, error weight `t`.

    The decoder's threshold is `max(floor((base + slope * weight of the syndrome) / 10^8), least)`.
    """

    name: str
    r: int
    d: int
    t: int
    base: int
    slope: int
    least: int

    @property
    def block(self) -> int:
        """Bytes of one polynomial."""
        return (self.r + 7) // 8

    @property
    def public_size(self) -> int:
        return self.block

    @property
    def ciphertext_size(self) -> int:
        return self.block + SECRET_SIZE

    @property
    def private_size(self) -> int:
        """Bytes of a private key in the form of the reference code, see `scheme.PrivateKey`."""
        return 2 * self.d * _INDEX_SIZE + 3 * self.block + SECRET_SIZE

    @property
    def mask(self) -> int:
        return (1 << self.r) - 1

    def threshold(self, weight: int) -> int:
        """How many unsatisfied checks flip a bit, for a syndrome of `weight`."""
        return max((self.base + self.slope * weight) // _SCALE, self.least)


BIKE_L1: Final = Parameters("BIKE-L1", 12323, 71, 134, 1353000000, 697220, 36)
BIKE_L3: Final = Parameters("BIKE-L3", 24659, 103, 199, 1525880000, 526500, 52)
BIKE_L5: Final = Parameters("BIKE-L5", 40973, 137, 264, 1787850000, 402312, 69)
LEVELS: Final = (BIKE_L1, BIKE_L3, BIKE_L5)
