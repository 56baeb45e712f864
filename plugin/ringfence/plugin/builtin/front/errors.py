"""Error codes between the fronts and the decision process."""

from __future__ import annotations

from ringfence.errors import Code, Kind
from ringfence.plugin.errors import GateError


class FrontError(GateError):
    """A front and the decision process could not do their work together."""


FRONT_MALFORMED = Code("front.malformed", Kind.INTERNAL)
FRONT_OVERFLOW = Code("front.overflow", Kind.INTERNAL)
FRONT_NO_ANSWER = Code("front.no_answer", Kind.UNAVAILABLE)
FRONT_NOT_STARTED = Code("front.not_started", Kind.UNAVAILABLE)
FRONT_NO_SIGN_IN = Code("front.no_sign_in", Kind.INVALID)
