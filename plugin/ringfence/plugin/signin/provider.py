"""The OpenID provider: its discovery document, pinned to its issuer, and its keys.

Sources: OpenID Connect Discovery 1.0, sections 3 and 4.3; RFC 8414; RFC 9207 (the issuer in the answer).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ringfence.errors import RingfenceError
from ringfence.plugin.identity.fetching import Fetcher, checked_url
from ringfence.plugin.identity.key_https import KeyAddress
from ringfence.plugin.identity.keyring import Keyring
from ringfence.plugin.identity.settings import KeySetSettings
from ringfence.plugin.signin.errors import PROVIDER_UNFIT, SignInError
from ringfence.plugin.signin.settings import SignInSettings

MAX_DOCUMENT: Final = 64 * 1024
MAX_AGE: Final = 4
"""A document that cannot be read again counts for this many times `refresh_s`."""

_Url = Annotated[str, Meta(max_length=2048)]


class _Document(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: _Url
    token_endpoint: _Url
    jwks_uri: _Url
    end_session_endpoint: _Url = ""
    response_types_supported: tuple[str, ...] = ("code",)
    code_challenge_methods_supported: tuple[str, ...] | None = None
    says_issuer: bool = msgspec.field(name="authorization_response_iss_parameter_supported", default=False)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where the provider's endpoints are, and whether its answers name it."""

    authorization: str
    token: str
    keys: str
    end_session: str
    says_issuer: bool


def decode(data: bytes, issuer: str) -> Metadata:
    """What a discovery document says. Raises `signin.provider_unfit` for another issuer's, and without PKCE."""
    if len(data) > MAX_DOCUMENT:
        raise _unfit(f"its discovery document has more than {MAX_DOCUMENT} bytes")
    try:
        found = msgspec.json.decode(data, type=_Document)
        for url in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            checked_url(url, field="provider")
        if found.end_session_endpoint:
            checked_url(found.end_session_endpoint, field="provider")
    except (msgspec.MsgspecError, ValueError, RecursionError, RingfenceError):
        raise _unfit("its discovery document is none, or names an address that may not be asked") from None
    if found.issuer != issuer:
        raise _unfit("its discovery document is another issuer's")
    # Section 3: a document that does not list them says nothing about PKCE; one that does must list S256.
    challenges = found.code_challenge_methods_supported or ("S256",)
    if "code" not in found.response_types_supported or "S256" not in challenges:
        raise _unfit("it does not offer the code flow with PKCE by S256")
    return Metadata(
        found.authorization_endpoint,
        found.token_endpoint,
        found.jwks_uri,
        found.end_session_endpoint,
        found.says_issuer,
    )


class Provider:
    """The provider of `settings`, whose document is read again every `refresh_s`, once at a time."""

    def __init__(self, settings: SignInSettings, fetcher: Fetcher) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._url = checked_url(settings.issuer.rstrip("/") + "/.well-known/openid-configuration", field="issuer")
        self._reading = asyncio.Lock()
        self._held: tuple[Metadata, Keyring] | None = None
        self._read_at = 0

    async def current(self, *, now: int) -> tuple[Metadata, Keyring]:
        """Its metadata and keys. Raises `identity.fetch_failed`, `signin.provider_unfit`."""
        async with self._reading:
            age = abs(now - self._read_at)
            if self._held is not None and age < self._settings.refresh_s:
                return self._held
            try:
                data = await self._fetcher.fetch(
                    self._url,
                    headers={"accept": "application/json"},
                    form=None,
                    most=MAX_DOCUMENT,
                    timeout_s=self._settings.timeout_s,
                )
                metadata = decode(data, self._settings.issuer)
            except RingfenceError:
                if self._held is None or age >= MAX_AGE * self._settings.refresh_s:
                    raise
                return self._held
            if self._held is None or self._held[0].keys != metadata.keys:
                source = KeyAddress(metadata.keys, self._fetcher, timeout_s=self._settings.timeout_s)
                keyring = Keyring(source, KeySetSettings(url=metadata.keys, timeout_s=self._settings.timeout_s))
            else:
                keyring = self._held[1]
            self._held, self._read_at = (metadata, keyring), now
            return self._held


def _unfit(why: str) -> SignInError:
    return SignInError(
        PROVIDER_UNFIT, f"The provider cannot be used: {why}.", field="issuer", hint="Look at its discovery document."
    )
