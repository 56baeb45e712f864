"""A detector that sees nothing: for a gateway whose threat detection is switched off. Pure."""

from __future__ import annotations

from typing import Final

from ringfence.plugin.threats.port import Sighting, Standing

_CALM: Final = Standing()


class Calm:
    """Everybody stands well."""

    def see(self, sighting: Sighting) -> None:
        """Takes note of nothing."""

    def standing(self, *, source: str, principal: str, now: int) -> Standing:
        """Nothing against anybody."""
        del source, principal, now
        return _CALM
