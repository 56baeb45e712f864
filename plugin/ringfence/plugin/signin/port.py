"""The port to the sessions that browsers get. Pure."""

from __future__ import annotations

from typing import Protocol

from ringfence.plugin.identity.port import Proven


class BrowserSessions(Protocol):
    """Sessions of browsers, by the value of their cookie."""

    async def open(self, proven: Proven, factors: tuple[tuple[str, int], ...]) -> str:
        """A new session for who has signed in, and the value of its cookie: unguessable, at most 512 characters.

        `factors` has each factor and when it ends. What an identity token proves is bound to no key, so whoever
        decides may ask for another factor. Raises `GateError` where this person gets no session.
        """
        ...

    async def end(self, cookie: str) -> None:
        """Ends the session with that cookie; nothing where there is none. Never raises for what a browser may send."""
        ...
