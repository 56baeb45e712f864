"""Requests that another site makes a browser send: refused, unless they carry what that site cannot know. Pure.

Two independent checks. A browser says where a request comes from (`Origin`, `Sec-Fetch-Site`), and a page of ours
repeats a token that is bound to the session by a MAC (the signed double-submit pattern of OWASP's cheat sheet): a
cookie that an attacker managed to plant carries no token for the victim's session.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

from ringfence.crypto import mac
from ringfence.plugin.signin import cookies
from ringfence.plugin.signin.errors import REQUEST_FORGED, SignInError

FIELD: Final = "x-csrf-token"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SALT_BYTES: Final = 16
_LABEL: Final = b"ringfence csrf v1\0"
_MAC_BYTES: Final = 32


def token(key: bytes, session: str, salt: bytes) -> str:
    """The token of the session with the cookie `session`; `salt` is 16 random bytes."""
    return base64.urlsafe_b64encode(salt + _tag(key, session, salt)).decode("ascii")


def protect(method: str, headers: Sequence[tuple[str, str]], *, key: bytes, origin: str, submitted: str = "") -> None:
    """Raises `signin.request_forged` unless a request with an unsafe `method` was made by a page of `origin`.

    The token is in the field `X-CSRF-Token`, or in a form's field as `submitted`, and in its cookie. Requests without a
    session's cookie have nothing to forge with, but are held to the same. Raises what `cookies.read` raises too.
    """
    if method in SAFE:
        return
    said = {name: value for name, value in headers if name in {"origin", "sec-fetch-site", FIELD}}
    if sum(name in said for name, _ in headers) != len(said):
        raise _forged("a field that says where it comes from is there twice")
    if said.get("sec-fetch-site", "same-origin") != "same-origin":
        raise _forged("the browser says that another site made it")
    # A request that says neither comes from no browser that counts.
    if said.get("origin", origin if "sec-fetch-site" in said else "") != origin:
        raise _forged("it does not come from a page of this gateway")
    session, expected = cookies.read(headers, cookies.SESSION), cookies.read(headers, cookies.FORGERY)
    given = said.get(FIELD, submitted)
    if not expected or not hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode()):
        raise _forged("its token is not that of the cookie")
    try:
        decoded = base64.b64decode(given, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    salt, tag = decoded[:SALT_BYTES], decoded[SALT_BYTES:]
    if len(decoded) != SALT_BYTES + _MAC_BYTES or not hmac.compare_digest(tag, _tag(key, session, salt)):
        raise _forged("its token is not one of this session")


def _tag(key: bytes, session: str, salt: bytes) -> bytes:
    return mac(key, _LABEL + len(session).to_bytes(4) + session.encode() + salt)


def _forged(why: str) -> SignInError:
    return SignInError(REQUEST_FORGED, f"The request is refused: {why}.", field="csrf", hint="Load the page again.")
