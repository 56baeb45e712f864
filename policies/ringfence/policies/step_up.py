"""`@step_up("FACTOR")` on a forbid: the identity factor with which that policy would not deny.

Both engines answer with it in the same way, so that a caller is asked for the same factors whoever decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

FACTOR: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
"""A well-formed name of an identity factor, such as "webauthn" or "session-mac"."""


def helping_factors(deciding: Iterable[str], factors: Mapping[str, str]) -> tuple[str, ...]:
    """The factors, sorted, that would help where these policies deny; `factors` are by policy id.

    Empty unless every one of them names a factor: were one left that no factor helps, asking for others would only
    trouble a person for nothing.
    """
    named = [factors.get(policy, "") for policy in deciding]
    return tuple(sorted(set(named))) if all(named) else ()
