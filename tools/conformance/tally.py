"""What was counted of the specification's suite at one level."""

from __future__ import annotations

import msgspec


class Tally(msgspec.Struct, forbid_unknown_fields=True):
    """Assertions that hold and those that do not, each named; the others are apart, by the proposal they need.

    `text` counts those that hold of the text format, which a guest never comes in. `modules` were taken, and `withheld`
    were rightly refused.
    """

    passed: int = 0
    text: int = 0
    failed: list[str] = msgspec.field(default_factory=list)
    apart: dict[str, int] = msgspec.field(default_factory=dict)
    modules: int = 0
    withheld: int = 0

    def set_apart(self, need: str, count: int = 1) -> None:
        """Count assertions of what the level does not offer."""
        self.apart[need] = self.apart.get(need, 0) + count

    def add(self, other: Tally) -> None:
        """Count what another script counted as well."""
        self.passed += other.passed
        self.text += other.text
        self.failed += other.failed
        for need, count in other.apart.items():
            self.set_apart(need, count)
        self.modules += other.modules
        self.withheld += other.withheld
