"""Whether a request has a body, where a host shows its fields alone. Pure."""

from __future__ import annotations

import re

from ringfence.plugin.hosts.errors import FIELDS_MALFORMED, HostError
from ringfence.plugin.hosts.port import Unseen

_LENGTH = re.compile(r"[0-9]{1,18}")


def read_framing(protocol: str, length: str, coding: str) -> Unseen:
    """Whether there is a body, by the request's own framing: in HTTP/1 none of both fields says that there is none.

    Later versions frame a body without a field, so only a length of 0 says so. Raises `hosts.fields_malformed` for
    both fields at once and for a length that is none, the shapes of request smuggling (RFC 9112 section 6.3).
    """
    if (length and coding) or (length and not _LENGTH.fullmatch(length)):
        raise HostError(FIELDS_MALFORMED, "The request's length is ambiguous.", field="content-length")
    if coding:
        return Unseen.HIDDEN
    if length:
        return Unseen.HIDDEN if int(length) else Unseen.ABSENT
    return Unseen.ABSENT if protocol in ("HTTP/1.1", "HTTP/1.0") else Unseen.HIDDEN
