"""What the HTTP application needs of the gate: the real one in its process, or one that asks another process. Pure."""

from __future__ import annotations

from typing import Protocol

from ringfence.plugin.api import JobAnswer
from ringfence.plugin.hosts.port import Inbound


class GateDoor(Protocol):
    """The four questions of the HTTP API; each may raise `RefusedError` and `RingfenceError`, and may be cancelled."""

    async def open_session(self, message: bytes, *, source: str) -> bytes:
        """The handshake's reply to a hello."""
        ...

    async def screen(self, inbound: Inbound) -> None:
        """Refuses a job that its header does not authenticate."""
        ...

    async def submit(self, inbound: Inbound) -> JobAnswer:
        """Forwards a job and waits for it."""
        ...

    async def add_factors(self, inbound: Inbound) -> tuple[str, ...]:
        """The factors of a session, once the evidence in the body is added to it."""
        ...
