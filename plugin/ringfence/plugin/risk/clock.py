"""Time that only goes forward, out of a clock that jumps."""

from __future__ import annotations

from typing import Final

LONGEST_STEP_S: Final = 300


class SteadyClock:
    """Seconds that passed while somebody watched, out of wall-clock readings.

    A reading before the last one, or more than `LONGEST_STEP_S` after it, is a jump and passes no time at all: whoever
    can set the clock back does not make a lock-out last, and whoever can set it forward does not make what was counted
    fade. A process that reads it at least that often, with a task if there is no traffic, loses no time.
    """

    __slots__ = ("steady", "wall")

    def __init__(self, steady: int = 0) -> None:
        self.wall = -1
        self.steady = steady

    def read(self, wall: int) -> int:
        """The steady time at the wall clock's reading `wall`, in whole seconds; never less than before."""
        if wall != self.wall:
            if self.wall >= 0 and 0 < wall - self.wall <= LONGEST_STEP_S:
                self.steady += wall - self.wall
            self.wall = wall
        return self.steady
