"""How many jobs of each principal are under way. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Running:
    """Jobs under way, by principal; only those who have one are kept."""

    def __init__(self) -> None:
        self._jobs: dict[str, int] = {}

    def __call__(self, principal: str) -> int:
        return self._jobs.get(principal, 0)

    @contextmanager
    def one(self, principal: str) -> Iterator[None]:
        """One more job of `principal` while the context lasts."""
        self._jobs[principal] = self(principal) + 1
        try:
            yield
        finally:
            left = self._jobs.pop(principal) - 1
            if left:
                self._jobs[principal] = left
