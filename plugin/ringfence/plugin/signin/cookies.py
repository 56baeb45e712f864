"""Cookies: strictly read, and set so that no other host, no script and no other site gets hold of them. Pure.

Source: RFC 6265bis, sections 4.1 and 5.4. The prefix "__Host-" makes a browser refuse a cookie that is not Secure, has
a Domain or another Path: a neighbouring host or an attacker on plain HTTP cannot plant one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

from ringfence.plugin.signin.errors import COOKIES_MALFORMED, COOKIES_TOO_LARGE, SignInError

SESSION: Final = "__Host-ringfence"
PENDING: Final = "__Host-ringfence-signin"
FORGERY: Final = "__Host-ringfence-csrf"

MAX_BYTES: Final = 8192
MAX_COOKIES: Final = 64
MAX_VALUE: Final = 3072
_VALUE: Final = re.compile(r"[A-Za-z0-9._~=+/-]*")


def read(headers: Iterable[tuple[str, str]], name: str) -> str:
    """The value of the cookie `name` in a request's header fields, or "" where there is none.

    Raises `signin.cookies_too_large` beyond 8 KiB or 64 cookies, and `signin.cookies_malformed` where `name` is there
    twice (a planted one beside ours) or has characters that ours never have.
    """
    lines = [value for field, value in headers if field == "cookie"]
    if sum(map(len, lines)) > MAX_BYTES:
        raise SignInError(
            COOKIES_TOO_LARGE, f"The cookies have more than {MAX_BYTES} bytes.", field="cookie", hint="Delete some."
        )
    pairs = [pair.strip(" \t") for line in lines for pair in line.split(";")]
    if len(pairs) > MAX_COOKIES:
        raise SignInError(
            COOKIES_TOO_LARGE, f"There are more than {MAX_COOKIES} cookies.", field="cookie", hint="Delete some."
        )
    found = [value for key, _, value in (pair.partition("=") for pair in pairs) if key == name]
    if len(found) > 1 or any(len(value) > MAX_VALUE or not _VALUE.fullmatch(value) for value in found):
        raise SignInError(
            COOKIES_MALFORMED,
            f"The cookie {name} is there twice, or is not one that this gateway has set.",
            field="cookie",
            hint="Delete this site's cookies and sign in again.",
        )
    return found[0] if found else ""


def without_session(value: str) -> str:
    """A Cookie field's value without the session cookie, "" where nothing else is there: for the upstream.

    Whoever has that cookie is its browser to the gateway, so no service behind it gets it.
    """
    pairs = [pair.strip(" \t") for pair in value.split(";")]
    return "; ".join(pair for pair in pairs if pair and pair.partition("=")[0] != SESSION)


def put(
    name: str, value: str, *, max_age_s: int, same_site: Literal["Lax", "Strict"] = "Lax", script: bool = False
) -> tuple[str, str]:
    """The header field that sets a cookie. Only where `script` can a page's own script read it.

    SameSite=Lax, where a browser must send it when it comes back from the provider; a form or script of another site
    never sends it with an unsafe method.
    """
    http_only = "" if script else "; HttpOnly"
    return "set-cookie", f"{name}={value}; Path=/; Secure; SameSite={same_site}; Max-Age={max_age_s}{http_only}"


def drop(name: str) -> tuple[str, str]:
    """The header field that removes a cookie."""
    return put(name, "", max_age_s=0)
