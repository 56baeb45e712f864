"""What a fuzz target is, and how one input is tried; each `targets_*` module beside this lists those of a part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from ringfence.errors import RingfenceError


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder, with inputs to start from."""

    decode: Callable[[bytes], object]
    seeds: tuple[bytes, ...] = (b"",)


def one_input(target: Target, data: bytes) -> None:
    """Decodes `data`; anything but a result or a `RingfenceError` is a finding."""
    with contextlib.suppress(RingfenceError):
        target.decode(data)
