"""The session cookie of a browser, as the pipeline makes and reads it. Pure.

Its value is `NAME.TOKEN`: the session's name, and a MAC under the session's own key, which never leaves the gateway.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Final

from ringfence.crypto import mac
from ringfence.plugin.errors import SESSION_FOREIGN, GateError
from ringfence.plugin.signin import cookies

_VALUE: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]{43})")


def session_token(key: bytes) -> str:
    """The token in the cookie of the session with `key`."""
    return base64.urlsafe_b64encode(mac(key, b"ringfence cookie")).rstrip(b"=").decode("ascii")


def cookie_session(headers: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The name and the token in the session cookie, neither authenticated; None where there is no such cookie.

    Raises `signin.cookies_too_large`, `signin.cookies_malformed`, and `session.foreign` for a value that is none.
    """
    value = cookies.read(headers, cookies.SESSION)
    return split(value) if value else None


def split(value: str) -> tuple[str, str]:
    """The name and the token in a cookie's value. Raises `session.foreign`."""
    matched = _VALUE.fullmatch(value)
    if matched is None:
        raise foreign()
    return matched[1], matched[2]


def foreign() -> GateError:
    """The refusal of a cookie that is no session's."""
    return GateError(SESSION_FOREIGN, "The cookie is not this session's.", field=cookies.SESSION, hint="Sign in again.")
