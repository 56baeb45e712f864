"""Reads sizes and durations as people write them, such as 64MiB and 500ms; strict, because a limit is at stake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

SIZES: Mapping[str, int] = MappingProxyType(
    {
        "": 1,
        "B": 1,
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
    }
)
"""Bytes of each unit (IEC 80000-13)."""

DURATIONS: Mapping[str, int] = MappingProxyType({"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000})
"""Milliseconds of each unit."""

_QUANTITY = re.compile(r"([0-9]{1,15})([A-Za-z]*)\Z")


def size(text: str) -> int:
    """The bytes that `text` writes. Raises `ValueError` that says what was expected."""
    return _read(text, SIZES, "a size such as 64MiB, 1GB or 4096")


def duration_ms(text: str) -> int:
    """The milliseconds that `text` writes. Raises `ValueError` that says what was expected."""
    return _read(text, DURATIONS, "a duration such as 2s, 500ms or 5min")


def _read(text: str, units: Mapping[str, int], expected: str) -> int:
    found = _QUANTITY.match(text)
    if found is None or found[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ValueError(f"{text!r} is not {expected} (a whole number and one of {known})")
    return int(found[1]) * units[found[2]]
