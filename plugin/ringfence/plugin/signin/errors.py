"""Error codes of signing in with a browser."""

from __future__ import annotations

from ringfence.errors import Code, Kind
from ringfence.plugin.errors import GateError


class SignInError(GateError):
    """A browser is not signed in, or a request of it may be forged."""


PROVIDER_UNFIT = Code("signin.provider_unfit", Kind.UNAVAILABLE)
PROVIDER_REFUSED = Code("signin.provider_refused", Kind.UNAUTHENTICATED)
CALLBACK_MALFORMED = Code("signin.callback_malformed", Kind.INVALID)
CALLBACK_FOREIGN = Code("signin.callback_foreign", Kind.UNAUTHENTICATED)
CALLBACK_EXPIRED = Code("signin.callback_expired", Kind.UNAUTHENTICATED)
RETURN_UNSAFE = Code("signin.return_unsafe", Kind.INVALID)
COOKIES_MALFORMED = Code("signin.cookies_malformed", Kind.INVALID)
COOKIES_TOO_LARGE = Code("signin.cookies_too_large", Kind.TOO_LARGE)
REQUEST_FORGED = Code("signin.request_forged", Kind.DENIED)
