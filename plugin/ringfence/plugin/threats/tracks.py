"""What is remembered of one subject: how often something happened lately, and what is being done about it."""

from __future__ import annotations

from typing import Final

from ringfence.plugin.threats.events import Pattern
from ringfence.plugin.threats.settings import ThreatSettings

MOST_STRIKES: Final = 64.0
MOST_NAMES: Final = 256
_NEGLIGIBLE = 0.5


class Window:
    """A sliding count over `within_s` seconds: this stretch of time and, in the share that is still inside, the last.

    It counts events, or different names by their hashes, of which it keeps at most `MOST_NAMES`.
    """

    __slots__ = ("_before", "_begun", "_count", "_names", "_names_before", "_within_s")

    def __init__(self, within_s: int, steady: int) -> None:
        self._within_s = within_s
        self._begun = steady
        self._count = 0.0
        self._before = 0.0
        self._names: frozenset[int] = frozenset()
        self._names_before: frozenset[int] = frozenset()

    def add(self, steady: int, amount: float = 1.0) -> float:
        """Counts, down to 0, and gives the count over the time before `steady`."""
        self._slide(steady)
        self._count = max(0.0, self._count + amount)
        return self.count(steady)

    def count(self, steady: int) -> float:
        """The count over the `within_s` seconds before `steady`."""
        self._slide(steady)
        return self._count + self._before * (1 - (steady - self._begun) / self._within_s)

    def name(self, steady: int, name: int) -> int:
        """Counts a name, and gives how many different ones there were in this stretch of time and the last."""
        self._slide(steady)
        if len(self._names) < MOST_NAMES:
            self._names |= {name}
        return len(self._names | self._names_before)

    def weight(self, steady: int) -> float:
        """How much it has counted, of either sort."""
        return self.count(steady) + len(self._names)

    def clear(self) -> None:
        """Begins anew, after a threat was told of."""
        self._count = self._before = 0.0
        self._names = self._names_before = frozenset()

    def _slide(self, steady: int) -> None:
        stretches = (steady - self._begun) // self._within_s
        if stretches < 1:
            return
        self._before = self._count if stretches == 1 else 0.0
        self._count = 0.0
        self._begun += stretches * self._within_s
        self._names_before = self._names if stretches == 1 else frozenset()
        self._names = frozenset()


class Track:
    """One source or principal. All times are steady seconds; `risk` and `strikes` decay, as of `at`.

    While `calm`, nothing is being done about it.
    """

    __slots__ = ("at", "calm", "locked_until", "risk", "step_up_until", "strikes", "windows")

    def __init__(self, steady: int) -> None:
        self.at = steady
        self.calm = True
        self.risk = 0.0
        self.strikes = 0.0
        self.locked_until = 0
        self.step_up_until = 0
        self.windows: dict[Pattern, Window] = {}

    def window(self, pattern: Pattern, within_s: int, steady: int) -> Window:
        """The subject's window of a pattern."""
        window = self.windows.get(pattern)
        if window is None:
            window = self.windows[pattern] = Window(within_s, steady)
        return window

    def fade(self, steady: int, settings: ThreatSettings) -> None:
        """Lets risk and strikes decay up to `steady`, and looks whether anything is still being done."""
        elapsed = steady - self.at
        if elapsed > 0:
            self.risk *= 0.5 ** (elapsed / settings.half_life_s)
            self.strikes *= 0.5 ** (elapsed / settings.strike_half_life_s)
            self.at = steady
        if self.risk < _NEGLIGIBLE:
            self.risk = 0.0
        self.calm = not self.risk and steady >= self.locked_until and steady >= self.step_up_until

    def raise_risk(self, settings: ThreatSettings) -> None:
        """Adds the points of one threat."""
        self.risk = min(float(settings.most_points), self.risk + settings.threat_points)

    def lock(self, steady: int, settings: ThreatSettings) -> int:
        """Locks out, for twice as long with each recent strike, up to the most; the seconds that it lasts."""
        seconds = min(settings.lock_max_s, int(settings.lock_s * 2 ** min(self.strikes, 30.0)))
        self.strikes = min(MOST_STRIKES, self.strikes + 1.0)
        self.locked_until = max(self.locked_until, steady + seconds)
        return seconds

    def gravity(self, steady: int) -> float:
        """How much it matters that the subject is not forgotten."""
        counted = sum(window.weight(steady) for window in self.windows.values())
        return counted + 1000.0 * self.strikes + 1000.0 * self.risk + (1e6 if steady < self.locked_until else 0.0)
