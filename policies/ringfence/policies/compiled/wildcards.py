"""Cedar's `like`: text against a pattern whose wildcards stand for any run of characters.

No regular expression: a pattern with many wildcards makes one backtrack for long, on text that a stranger chose.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern, cut at its wildcards: `pieces` has one entry more than there are wildcards."""

    pieces: tuple[str, ...]

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` matches."""
        first, *middle = self.pieces
        if not middle:
            return text == first
        last = middle.pop()
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return False
        position, end = len(first), len(text) - len(last)
        for piece in middle:
            found = text.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True
