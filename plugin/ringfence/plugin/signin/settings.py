"""The gateway's settings for signing in with a browser. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from ringfence.plugin.identity.settings import JoseAlgorithm, Name, Text

SIGN_IN: Final = "/.ringfence/signin"
CALLBACK: Final = "/.ringfence/callback"
LOG_OUT: Final = "/.ringfence/logout"

Origin: TypeAlias = Annotated[str, Meta(pattern=r"^https://[a-z0-9.-]+(:[0-9]{1,5})?\Z", max_length=255)]


class SignInSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The provider, and this gateway as its client.

    `origin` is what browsers call the gateway; the one redirect address is `origin` and `CALLBACK`. `client_secret` is
    a file, readable by its owner alone, or absent for a public client: PKCE is used by both. A person has `pending_s`
    to sign in at the provider, and is signed in for `session_s`. `groups_claim` and `attribute_claims` are as for
    tokens.
    """

    issuer: Text
    origin: Origin
    client_id: Text
    client_secret: Path | None = None
    authorities: Path | None = None
    scopes: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=16)] = ("openid",)
    algorithms: Annotated[tuple[JoseAlgorithm, ...], Meta(min_length=1)] = ("ES256", "EdDSA")
    pending_s: Annotated[int, Meta(ge=30, le=3600)] = 600
    session_s: Annotated[int, Meta(ge=60, le=86_400)] = 3600
    max_lifetime_s: Annotated[int, Meta(ge=1, le=86_400)] = 86_400
    leeway_s: Annotated[int, Meta(ge=0, le=120)] = 5
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    refresh_s: Annotated[int, Meta(ge=60, le=86_400)] = 3600
    concurrent: Annotated[int, Meta(ge=1, le=1000)] = 32
    groups_claim: str = ""
    attribute_claims: dict[Name, Text] = {}

    @property
    def redirect_uri(self) -> str:
        return self.origin + CALLBACK
