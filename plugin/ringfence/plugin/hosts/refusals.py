"""How adapters ask and refuse: a bounded call of the decision core, and the answer to what never reached it."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from ringfence.errors import RingfenceError
from ringfence.plugin.api import PROBLEM, Problem
from ringfence.plugin.hosts.errors import DECISION_FAILED, DECISION_LATE, HOST_BUSY, HostError
from ringfence.plugin.hosts.port import Answer, Gatekeeper, Inbound

CODE_FIELD: Final = "x-ringfence-code"
"""The header field of a refusal that carries its code, for hosts that do not pass its body on."""


def refusal(error: RingfenceError) -> Answer:
    """The answer that refuses a request for `error`, as the decision core would write it (RFC 9457)."""
    kind = error.code.kind
    problem = Problem(error.code.name, error.message, kind.http, error.field, error.hint)
    headers = [("content-type", PROBLEM), ("cache-control", "no-store"), (CODE_FIELD, error.code.name)]
    if kind.http == 401:
        # RFC 9110 section 15.5.2: a 401 has a challenge.
        headers.append(("www-authenticate", "Signature"))
    if kind.http == 429:
        headers.append(("retry-after", "1"))
    return Answer(kind.http, headers=tuple(headers), body=msgspec.json.encode(problem))


class Desk:
    """Asks one gatekeeper: at most `concurrent` questions at a time, each for at most `timeout_s` seconds.

    Past the bound, past the time, and whatever goes wrong, the answer is a refusal: an adapter that shares a desk fails
    closed, and the core is not asked more than it can hold.
    """

    def __init__(self, gatekeeper: Gatekeeper, *, concurrent: int, timeout_s: float) -> None:
        self._gatekeeper = gatekeeper
        self._free = concurrent
        self._timeout_s = timeout_s

    async def decide(self, inbound: Inbound) -> Answer:
        """The gatekeeper's answer, or a refusal. Raises nothing but `asyncio.CancelledError`."""
        if self._free <= 0:
            return refusal(
                HostError(HOST_BUSY, "As many decisions as allowed are under way.", hint="Try again in a second.")
            )
        self._free -= 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._gatekeeper.decide(inbound)
        except TimeoutError:
            return refusal(
                HostError(DECISION_LATE, f"There was no decision within {self._timeout_s} s.", hint="Try again later.")
            )
        except RingfenceError as error:
            return refusal(error)
        except Exception:  # noqa: BLE001 - a gatekeeper that breaks its word must still not open the gate
            return refusal(HostError(DECISION_FAILED, "The decision failed in a way that it should not."))
        finally:
            self._free += 1
