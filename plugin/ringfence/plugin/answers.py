"""How a refusal is written for whoever is refused: a problem document, and what it may do about it. Pure.

RFC 9457 (problem details), RFC 9110 section 15.5.2 (a 401 has a challenge), RFC 9470 (step-up: which factors are
missing), RFC 6585 section 4 (a 429 says when to come back).
"""

from __future__ import annotations

from typing import Final

import msgspec

from ringfence.errors import RingfenceError
from ringfence.plugin.api import PROBLEM, Problem, StageView
from ringfence.plugin.errors import LimitedError, StepUpError
from ringfence.plugin.hosts.port import OWN_PREFIX, Answer

CODE_FIELD: Final = f"{OWN_PREFIX}code"
"""The header field of a refusal with its code, for hosts that do not pass its body on."""

DECISION_FIELD: Final = f"{OWN_PREFIX}decision"
"""The header field with the decision's id, on its way to an upstream and back to a caller."""

FACTOR_URN: Final = "urn:ringfence:factor:"


def refusal(
    error: RingfenceError,
    *,
    decision_id: str = "",
    trace: tuple[StageView, ...] = (),
    receipt: bytes = b"",
    signature: bytes = b"",
) -> Answer:
    """The answer that refuses a request for `error`; `receipt` where an admitted job failed."""
    status = error.code.kind.http
    missing = error.missing if isinstance(error, StepUpError) else ()
    problem = Problem(
        code=error.code.name,
        message=error.message,
        status=status,
        field=error.field,
        hint=error.hint,
        decision_id=decision_id,
        trace=trace,
        receipt=receipt,
        signature=signature,
        missing=missing,
    )
    headers = [("content-type", PROBLEM), ("cache-control", "no-store"), (CODE_FIELD, error.code.name)]
    if decision_id:
        headers.append((DECISION_FIELD, decision_id))
    if status == 401:
        headers.append(("www-authenticate", challenge(missing)))
    if isinstance(error, LimitedError):
        headers.append(("retry-after", str(error.retry_after_s)))
    elif status == 429:
        headers.append(("retry-after", "1"))
    return Answer(status, headers=tuple(headers), body=msgspec.json.encode(problem), decision_id=decision_id)


def challenge(missing: tuple[str, ...]) -> str:
    """The challenge of a 401: sign the request, or, where factors are `missing`, show those (RFC 9470 section 3)."""
    if not missing:
        return 'Signature realm="ringfence"'
    values = " ".join(FACTOR_URN + name for name in missing)
    return (
        'Signature realm="ringfence", error="insufficient_user_authentication", '
        f'error_description="More proof of who you are is needed", acr_values="{values}"'
    )
