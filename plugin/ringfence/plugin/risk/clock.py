"""Time that only goes forward, out of a clock that jumps."""

from __future__ import annotations

from typing import Final

LONGEST_STEP_S: Final = 300


class SteadyClock:
    """Seconds that passed while somebody watched, out of wall-clock readings.

    A reading more than `LONGEST_STEP_S` before or after the last one is a jump, and passes no time: whoever can set the
    clock back does not make a lock-out last, and whoever can set it forward does not make what was counted fade. One
    that is a little late passes no time either, so that readings out of order do not add up. A process that reads its
    clock at least that often, with a task if there is no traffic, loses no time.
    """

    __slots__ = ("steady", "wall")

    def __init__(self, steady: int = 0) -> None:
        self.wall = -(1 << 62)
        self.steady = steady

    def read(self, wall: int) -> int:
        """The steady time at the wall clock's reading `wall`, in whole seconds; never less than before."""
        step = wall - self.wall
        if 0 < step <= LONGEST_STEP_S:
            self.steady += step
            self.wall = wall
        elif not -LONGEST_STEP_S <= step <= 0:
            self.wall = wall
        return self.steady
