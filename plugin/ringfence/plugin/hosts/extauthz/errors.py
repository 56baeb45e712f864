"""Error codes of the Envoy adapter."""

from __future__ import annotations

from typing import Final

from ringfence.errors import Code, Kind
from ringfence.plugin.errors import GateError

MALFORMED: Final = Code("extauthz.malformed", Kind.INVALID)
MISCONFIGURED: Final = Code("extauthz.misconfigured", Kind.UNPROCESSABLE)
CHANNEL_MALFORMED: Final = Code("extauthz.channel_malformed", Kind.INVALID)
REQUEST_REFUSED: Final = Code("extauthz.request_refused", Kind.INVALID)
SOURCE_UNKNOWN: Final = Code("extauthz.source_unknown", Kind.DENIED)
ANSWER_UNUSABLE: Final = Code("extauthz.answer_unusable", Kind.INTERNAL)


class ExtAuthzError(GateError):
    """A check that Envoy asked for cannot be made: the request is refused."""
