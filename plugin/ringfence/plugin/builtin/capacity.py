"""What the requests under way may hold together: slots, and bytes of their bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ringfence.plugin.errors import GATEWAY_BUSY, GateError


class Slots:
    """At most `count` at a time."""

    def __init__(self, count: int) -> None:
        self._free = count

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds one slot. Raises `gateway.busy` where none is free."""
        if self._free <= 0:
            raise GateError(GATEWAY_BUSY, "As many requests as allowed are under way.", hint="Try again in a second.")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class ByteBudget:
    """At most `total` bytes at a time, counted as they arrive: what is only announced takes nothing from others."""

    def __init__(self, total: int) -> None:
        self._free = total

    @contextmanager
    def account(self) -> Iterator[Callable[[int], None]]:
        """An account to take bytes from, all given back at its end. Taking raises `gateway.busy`."""
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if size > self._free:
                raise GateError(
                    GATEWAY_BUSY,
                    "The bodies of the requests under way hold as many bytes as allowed.",
                    field="body",
                    hint="Try again in a second, or have the operator raise limits.bodies_bytes.",
                )
            self._free -= size
            held += size

        try:
            yield take
        finally:
            self._free += held
