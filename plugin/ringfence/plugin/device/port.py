"""The port of device reputation. Pure."""

from __future__ import annotations

from typing import Protocol


class Reputation(Protocol):
    """How far a device has kept its promises. In memory, without waiting; whoever owns it persists it."""

    def standing(self, device: str, *, now: int) -> int:
        """0 to 100; a device that nobody knows begins in the middle."""
        ...

    def observe(self, device: str, *, good: bool, weight: float, now: int) -> None:
        """Takes note of one observation, such as a fresh attestation result or a job that was a lie."""
        ...
