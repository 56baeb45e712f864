"""Names from a log as numbers, for a text that more people read than may read the log."""

from __future__ import annotations


class Mask:
    """Gives each name a number in the order in which they are met; the same name the same number."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._numbers: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        return f"{self._what} {self._numbers.setdefault(name, len(self._numbers) + 1)}"
