"""How settings become the application that signs browsers in."""

from __future__ import annotations

from collections.abc import Callable

from ringfence.plugin.identity.fetching import HttpsFetcher
from ringfence.plugin.identity.secret_file import read_secret
from ringfence.plugin.signin.app import SignIn
from ringfence.plugin.signin.port import BrowserSessions
from ringfence.plugin.signin.settings import SignInSettings


def open_sign_in(
    settings: SignInSettings,
    sessions: BrowserSessions,
    *,
    key: bytes,
    clock: Callable[[], int],
    randomness: Callable[[int], bytes],
) -> SignIn:
    """The application of `settings`. `key` is 32 secret bytes that all workers share; a new one ends what is pending.

    Raises `IdentityError` and `TrustError` where a file that the settings name cannot be used.
    """
    secret = "" if settings.client_secret is None else read_secret(settings.client_secret)
    fetcher = HttpsFetcher(settings.authorities)
    return SignIn(settings, sessions, fetcher, key=key, secret=secret, clock=clock, randomness=randomness)
