"""The claims of a verified token: issuer, audience, times, and what the configuration reads out of it. Pure.

Sources: RFC 7519, section 4.1; RFC 8725, section 3; RFC 7800 (`cnf`); RFC 9068, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from ringfence.plugin.identity.errors import TOKEN_AUDIENCE, TOKEN_ISSUER, TOKEN_TIME, IdentityError

MAX_GROUPS: Final = 256
MAX_VALUE: Final = 256

# RFC 7519: a NumericDate may have a fraction. Bounded, so that a sum of two stays a number.
NumericDate: TypeAlias = (
    Annotated[int, Meta(ge=0, lt=253_402_300_800)] | Annotated[float, Meta(ge=0, lt=253_402_300_800)]
)


class Confirmation(msgspec.Struct, frozen=True):
    """`cnf`: the key that whoever sends the token must prove to hold (RFC 8705, section 3.1; RFC 9449, section 6.1)."""

    x5t: Annotated[str, Meta(min_length=43, max_length=43)] | None = msgspec.field(name="x5t#S256", default=None)
    jkt: Annotated[str, Meta(min_length=43, max_length=43)] | None = None


class Claims(msgspec.Struct, frozen=True):
    """The registered claims that count; others are ignored."""

    iss: str
    sub: Annotated[str, Meta(min_length=1, max_length=255)]
    aud: str | Annotated[tuple[str, ...], Meta(max_length=32)]
    exp: NumericDate
    iat: NumericDate
    nbf: NumericDate | None = None
    cnf: Confirmation | None = None
    azp: str | None = None
    nonce: str | None = None


def check(claims: Claims, *, issuer: str, audience: str, now: int, leeway_s: int, max_lifetime_s: int) -> None:
    """Raises `identity.token_issuer`, `identity.token_audience` or `identity.token_time`.

    Issuer and audience are compared exactly: as URLs they have more than one spelling, and only one is pinned.
    """
    if claims.iss != issuer:
        raise IdentityError(TOKEN_ISSUER, "The token is another issuer's.", field="iss")
    audiences = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
    if audience not in audiences:
        raise IdentityError(
            TOKEN_AUDIENCE, "The token is meant for another audience.", field="aud", hint=f"Get one for {audience}."
        )
    if claims.exp + leeway_s <= now:
        raise _untimely(f"it expired {now - int(claims.exp)} s ago", "exp")
    if claims.iat > now + leeway_s or (claims.nbf is not None and claims.nbf > now + leeway_s):
        raise _untimely("it is not valid yet", "iat")
    if not 0 < claims.exp - claims.iat <= max_lifetime_s:
        raise _untimely(f"it does not live for 1 to {max_lifetime_s} s", "exp")


def groups(payload: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """The strings of the claim that has groups, at most 256 of them; none where `claim` is empty or no such list."""
    value = payload.get(claim) if claim else None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or len(value) > MAX_GROUPS:
        return ()
    return tuple(dict.fromkeys(entry for entry in value if isinstance(entry, str) and _tame(entry)))


def attributes(payload: Mapping[str, Any], named: Mapping[str, str]) -> tuple[str, ...]:
    """ "attribute=value" for every (attribute -> claim) of `named` whose claim is a string, a number or a boolean."""
    found = []
    for attribute, claim in named.items():
        match payload.get(claim):
            case bool() as flag:
                found.append(f"{attribute}={str(flag).lower()}")
            case int() | str() as value if _tame(str(value)):
                found.append(f"{attribute}={value}")
    return tuple(found)


def _tame(text: str) -> bool:
    return 0 < len(text) <= MAX_VALUE and text.isprintable()


def _untimely(why: str, field: str) -> IdentityError:
    return IdentityError(
        TOKEN_TIME, f"The token is refused: {why}.", field=field, hint="Get a new one; compare the clocks."
    )
