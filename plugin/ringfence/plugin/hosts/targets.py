"""The target of a request, as a host received it and as its upstream will: read strictly, and never changed. Pure.

What is refused here would be read in two ways by two programs: a path that a gateway and an upstream normalise
differently is how a request for `/public/..%2fadmin` passes a policy for `/public/`. Everything else goes through as it
is, to the byte, because the caller signed these bytes.

Sources: RFC 9112 section 3.2 (request target), RFC 3986 sections 2.1, 3.2 and 3.3, RFC 9110 section 9.1 (method).
"""

from __future__ import annotations

import re
from typing import Final

from ringfence import httpsig
from ringfence.plugin.hosts.errors import TARGET_MALFORMED, HostError

MAX_TARGET: Final = 8192
"""Characters of a path with its query."""

_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}")
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
# Possessive, so that no text makes them go back and forth.
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]++|%[0-9A-Fa-f]{2})*+")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]++|%[0-9A-Fa-f]{2})*+")
_USUAL: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
# Octets that no path needs and that end, split or hide what comes after them somewhere: controls, backslash, DEL.
_HOSTILE = re.compile(r"%(?:[01][0-9A-Fa-f]|5[Cc]|7[Ff])")
_DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:;[^/]*)?(?:/|$)", re.IGNORECASE)
_SLASH = re.compile("%2f", re.IGNORECASE)


def read_target(method: str, authority: str, raw: str) -> httpsig.Target:
    """The target of a request line in origin form (`raw` is path and query, as received).

    Raises `hosts.target_malformed` for another form, a character that RFC 3986 does not allow, a dot segment in any
    encoding, an encoded control character or backslash, user information or more than `MAX_TARGET` characters.
    """
    if method not in _USUAL and (not _METHOD.fullmatch(method) or method == "CONNECT"):
        raise _malformed("method", "The method is none, or one that makes a tunnel")
    if not _AUTHORITY.fullmatch(authority):
        raise _malformed("authority", "The authority is not a host with an optional port")
    if len(raw) > MAX_TARGET:
        raise _malformed("path", f"The path and query have more than {MAX_TARGET} characters")
    path, mark, query = raw.partition("?")
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        raise _malformed("path", "The path or query is not in origin form, or has a character that must be encoded")
    if "%" in path:
        if _HOSTILE.search(path):
            raise _malformed("path", "The path encodes a control character or a backslash")
        slashed = _SLASH.sub("/", path)
    else:
        slashed = path
    if ("." in slashed or "%" in slashed) and _DOTS.search(slashed):
        raise _malformed("path", "The path has a dot segment, which programs resolve differently")
    return httpsig.Target(method, authority, path, "?" + query if mark else "?")


def _malformed(field: str, what: str) -> HostError:
    return HostError(TARGET_MALFORMED, f"{what}.", field=field, hint="Send the target in its normal form.")
