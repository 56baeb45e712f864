"""The session cookie of a browser, as the pipeline reads it, and what keeps other sites from using it. Pure.

The cookie is `__Host-ringfence=NAME.TOKEN` (RFC 6265bis section 4.1.3.2): the session's name, and a MAC that only the
gateway can make. An unsafe method also needs the token that the page was given, in `X-CSRF-Token`, and must come from
the site itself as far as the browser says (Fetch Metadata, `Origin`): this stops cross-site request forgery.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from typing import Final

from ringfence.crypto import mac
from ringfence.plugin.errors import CSRF_REFUSED, HEADERS_MALFORMED, GateError
from ringfence.plugin.hosts.port import Inbound

SESSION_COOKIE: Final = "__Host-ringfence"
CSRF_FIELD: Final = "x-csrf-token"
MAX_COOKIES: Final = 8192
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_VALUE: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]{43})")


def session_cookie(key: bytes) -> str:
    """The token in the cookie of the session with `key`."""
    return _text(mac(key, b"ringfence cookie"))


def csrf_token(key: bytes) -> str:
    """The token that pages of the session with `key` send with unsafe methods."""
    return _text(mac(key, b"ringfence csrf"))


def cookie_session(headers: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The name and the token in the session cookie, neither authenticated; None where there is no such cookie.

    Raises `gateway.headers_malformed` for one that is there twice, is
    malformed, or stands among more than 8 KiB of cookies.
    """
    found: str | None = None
    for name, value in headers:
        if name == "cookie":
            if len(value) > MAX_COOKIES:
                raise _malformed(f"The cookies have more than {MAX_COOKIES} bytes.")
            for pair in value.split(";"):
                key, _, text = pair.strip(" ").partition("=")
                if key == SESSION_COOKIE:
                    if found is not None:
                        raise _malformed("The session cookie is there twice.")
                    found = text
    if found is None:
        return None
    matched = _VALUE.fullmatch(found)
    if matched is None:
        raise _malformed("The session cookie does not have its form.")
    return matched[1], matched[2]


def same_site(inbound: Inbound, key: bytes) -> None:
    """Raises `session.csrf` for an unsafe method that another site may have caused."""
    if inbound.target.method in _SAFE:
        return
    fields = dict(inbound.headers)
    site = fields.get("sec-fetch-site")
    origin = fields.get("origin", "")
    own = origin.partition("://")[2].lower() == inbound.target.authority.lower() and origin.startswith("https://")
    if (site is not None and site != "same-origin") or not own:
        raise _refused("The request comes from another site.")
    if not hmac.compare_digest(fields.get(CSRF_FIELD, "").encode(), csrf_token(key).encode()):
        raise _refused("The page's token is missing or wrong.")


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def _refused(why: str) -> GateError:
    return GateError(CSRF_REFUSED, why, field=CSRF_FIELD, hint="Load the page again, and send its token.")


def _malformed(why: str) -> GateError:
    return GateError(HEADERS_MALFORMED, why, field="cookie", hint="Delete the site's cookies, then sign in again.")
