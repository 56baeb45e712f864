"""The code flow as a state machine: begin, come back, exchange, finish. Pure.

Sources: OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3.7; RFC 7636 (PKCE); RFC 9207 (mix-up); RFC 9700 (best current
practice). What is pending travels in a sealed cookie of the browser that began: an answer that another browser was
given, or that somebody else began, finds no `state` there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from ringfence.crypto import CryptoError, seal, unseal
from ringfence.plugin.identity import claims as claim_rules
from ringfence.plugin.identity import jose
from ringfence.plugin.identity.claims import Claims
from ringfence.plugin.identity.jwks import VerificationKey
from ringfence.plugin.identity.port import Proven
from ringfence.plugin.signin.errors import (
    CALLBACK_EXPIRED,
    CALLBACK_FOREIGN,
    CALLBACK_MALFORMED,
    PROVIDER_REFUSED,
    RETURN_UNSAFE,
    SignInError,
)
from ringfence.plugin.signin.provider import Metadata
from ringfence.plugin.signin.settings import SignInSettings

FACTOR: Final = "oidc"
RANDOM_BYTES: Final = 108  # state, nonce and PKCE verifier of 32 bytes each, and the seal's nonce
MAX_RETURN: Final = 1024
MAX_CODE: Final = 4096
MAX_ANSWER: Final = 64 * 1024
_ASSOCIATED: Final = b"ringfence signin pending v1"
_RETURN: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@%?-][A-Za-z0-9._~!$&'()*+,;=:@%?/-]*)?")
_ERROR: Final = re.compile(r"[a-z_]{1,64}")
_TYPES: Final = frozenset({"", "jwt"})


class Pending(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A sign-in under way, as its cookie has it, sealed."""

    state: str
    nonce: str
    verifier: str
    return_to: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """The code that goes to the token endpoint, and what its answer must be for."""

    form: Mapping[str, str] = field(repr=False)
    pending: Pending = field(repr=False)


class _Answer(msgspec.Struct, frozen=True):
    id_token: Annotated[str, Meta(max_length=jose.MAX_TOKEN)]


def local_path(text: str) -> str:
    """`text`, where it is a path on this gateway to return to. Raises `signin.return_unsafe`.

    Stops open redirects: another host, a scheme, "//host", "/\\host", and what browsers normalise into one of them.
    """
    if len(text) > MAX_RETURN or not _RETURN.fullmatch(text):
        raise SignInError(
            RETURN_UNSAFE,
            "The address to return to is not a path on this gateway.",
            field="return_to",
            hint="Give a path such as /console.",
        )
    return text


def begin(
    settings: SignInSettings, provider: Metadata, *, key: bytes, random: bytes, return_to: str, now: int
) -> tuple[str, str]:
    """Where to send the browser, and the value of the cookie that it must come back with.

    `random` is `RANDOM_BYTES` fresh random bytes, `key` 32 secret bytes. Raises `signin.return_unsafe`.
    """
    state, nonce, verifier = (_encoded(random[at : at + 32]) for at in (0, 32, 64))
    pending = Pending(state, nonce, verifier, local_path(return_to), now + settings.pending_s)
    query = {
        "response_type": "code",
        "client_id": settings.client_id,
        "redirect_uri": settings.redirect_uri,
        "scope": " ".join(dict.fromkeys(("openid", *settings.scopes))),
        "state": state,
        "nonce": nonce,
        "code_challenge": _encoded(hashlib.sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
    }
    joint = "&" if "?" in provider.authorization else "?"
    sealed = random[96:108] + seal(key, random[96:108], msgspec.msgpack.encode(pending), _ASSOCIATED)
    return f"{provider.authorization}{joint}{urlencode(query)}", _encoded(sealed)


def reopen(cookie: str, *, key: bytes, now: int) -> Pending:
    """What is pending, from its cookie. Raises `signin.callback_foreign`, `signin.callback_expired`."""
    try:
        sealed = base64.b64decode(cookie + "=" * (-len(cookie) % 4), altchars=b"-_", validate=True)
        pending = msgspec.msgpack.decode(unseal(key, sealed[:12], sealed[12:], _ASSOCIATED), type=Pending)
    except (ValueError, CryptoError, msgspec.MsgspecError):
        raise _foreign("this browser has not begun to sign in here") from None
    if now >= pending.expires_at:
        raise SignInError(
            CALLBACK_EXPIRED, "Signing in took too long.", field="state", hint="Begin again; it takes a minute."
        )
    return pending


def come_back(
    settings: SignInSettings, provider: Metadata, pending: Pending, parameters: Sequence[tuple[str, str]]
) -> Exchange:
    """What to send to the token endpoint for the provider's answer. `parameters` are those of the callback's query.

    Raises `signin.callback_malformed`, `signin.callback_foreign`, `signin.provider_refused`.
    """
    known = [(name, value) for name, value in parameters if name in {"code", "state", "iss", "error"}]
    said = dict(known)
    if len(said) != len(known):
        raise _malformed("it says something twice")
    if not hmac.compare_digest(said.get("state", "").encode("utf-8", "replace"), pending.state.encode()):
        raise _foreign("it answers another request than this browser's")
    # RFC 9207, section 2.4: an answer of another provider must not be exchanged at this one.
    if said.get("iss", settings.issuer if not provider.says_issuer else "") != settings.issuer:
        raise _foreign("it is another provider's answer")
    if "error" in said:
        reason = said["error"] if _ERROR.fullmatch(said["error"]) else "an error"
        raise SignInError(
            PROVIDER_REFUSED, f"The provider did not sign you in ({reason}).", field="error", hint="Try again."
        )
    code = said.get("code", "")
    if not 0 < len(code) <= MAX_CODE or not code.isascii() or not code.isprintable():
        raise _malformed("it has no code")
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": settings.redirect_uri,
        "client_id": settings.client_id,
        "code_verifier": pending.verifier,
    }
    return Exchange(form, pending)


def identity_token(data: bytes, settings: SignInSettings) -> jose.Token:
    """The identity token in the token endpoint's answer, not verified yet.

    Raises `signin.provider_refused`, and what `jose.parse` raises.
    """
    try:
        if len(data) <= MAX_ANSWER:
            answer = msgspec.json.decode(data, type=_Answer)
            return jose.parse(
                answer.id_token.encode("utf-8", "replace"),
                algorithms=frozenset(settings.algorithms),
                types=_TYPES,
                field="id_token",
            )
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    raise SignInError(PROVIDER_REFUSED, "The provider's answer has no identity token.", field="id_token")


def finish(
    token: jose.Token, verification: VerificationKey, exchange: Exchange, settings: SignInSettings, *, now: int
) -> Proven:
    """Who has signed in. Raises what verifying a token raises, and `signin.callback_foreign` for another's token.

    An identity token is bound to this flow by its nonce, and to no key (OpenID Connect Core, section 3.1.3.7).
    """
    payload = jose.verified(token, verification, field="id_token")
    claims = jose.claims(payload, Claims, field="id_token")
    claim_rules.check(
        claims,
        issuer=settings.issuer,
        audience=settings.client_id,
        now=now,
        leeway_s=settings.leeway_s,
        max_lifetime_s=settings.max_lifetime_s,
    )
    several = not isinstance(claims.aud, str) and len(claims.aud) > 1
    if claims.azp != settings.client_id and (several or claims.azp is not None):
        raise _foreign("its identity token was issued to another client")
    if not hmac.compare_digest((claims.nonce or "").encode("utf-8", "replace"), exchange.pending.nonce.encode()):
        raise _foreign("its identity token is of another sign-in")
    said: dict[str, Any] = jose.claims(payload, dict[str, Any], field="id_token")
    return Proven(
        FACTOR,
        f"{claims.iss}#{claims.sub}",
        False,
        now + settings.session_s,
        claim_rules.groups(said, settings.groups_claim),
        claim_rules.attributes(said, settings.attribute_claims),
    )


def log_out(settings: SignInSettings, provider: Metadata) -> str:
    """Where a browser goes after a logout: to the provider's, where it has one (RP-Initiated Logout, section 2)."""
    if not provider.end_session:
        return "/"
    query = {"client_id": settings.client_id, "post_logout_redirect_uri": f"{settings.origin}/"}
    return f"{provider.end_session}{'&' if '?' in provider.end_session else '?'}{urlencode(query)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _foreign(why: str) -> SignInError:
    return SignInError(
        CALLBACK_FOREIGN, f"The provider's answer is refused: {why}.", field="state", hint="Begin to sign in again."
    )


def _malformed(why: str) -> SignInError:
    return SignInError(
        CALLBACK_MALFORMED, f"The provider's answer is refused: {why}.", field="query", hint="Begin to sign in again."
    )
