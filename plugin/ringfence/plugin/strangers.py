"""What strangers may write: refusals before authentication, counted by source, recorded up to a limit a minute."""

from __future__ import annotations

import ipaddress
from typing import Final

from ringfence.errors import Code
from ringfence.plugin.errors import TOO_MANY_REFUSALS, GateError

WINDOW_S: Final = 60
MAX_SOURCES: Final = 64
LOOPBACK: Final = "loopback"
OTHERS: Final = "others"


class StrangerLimit:
    """Lets `per_window` refusals of a source have records of their own, and counts those beyond.

    Only refusals of what was not authenticated are brought here, so whoever can authenticate is never held up by the
    strangers that share its source. All of loopback is one source, since a local process may use any of its addresses;
    past `MAX_SOURCES` sources in a window, the further ones share one count.

    Whoever writes the log takes `suppressed`, records each count, says so with `reported`, and then `turn`s the
    window: a count stays until it is recorded.
    """

    def __init__(self, per_window: int) -> None:
        self._per_window = per_window
        self._refused: dict[str, int] = {}
        self._suppressed: dict[str, int] = {}

    def refuse(self, source: str, code: Code) -> None:
        """Counts a refusal with `code` that is about to be recorded.

        Raises `gateway.too_many_refusals` where it must not be.
        """
        group = self._group(source)
        refused = self._refused.get(group, 0)
        if refused < self._per_window:
            self._refused[group] = refused + 1
            return
        self._suppressed[group] = self._suppressed.get(group, 0) + 1
        raise GateError(
            TOO_MANY_REFUSALS,
            f"The request was refused with {code}, like more than {self._per_window} unauthenticated ones from here "
            "within a minute; it is counted, and has no record of its own.",
            hint="Sign with a key that is pinned here, or in a session that is open; that always passes.",
        )

    def suppressed(self) -> tuple[tuple[str, int], ...]:
        """The sources with refusals that are not recorded yet, and how many."""
        return tuple(self._suppressed.items())

    def reported(self, source: str, count: int) -> None:
        """`count` of the refusals of `source` are in the log now."""
        self._suppressed[source] -= count
        if not self._suppressed[source]:
            del self._suppressed[source]

    def turn(self) -> None:
        """Begins the next window."""
        self._refused.clear()

    def _group(self, source: str) -> str:
        try:
            group = LOOPBACK if ipaddress.ip_address(source).is_loopback else source
        except ValueError:
            group = source
        return group if group in self._refused or len(self._refused) < MAX_SOURCES else OTHERS
