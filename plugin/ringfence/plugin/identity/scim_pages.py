"""Pages of a SCIM 2.0 server: bytes into users and groups. Source: RFC 7643; RFC 7644, section 3.4.2. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from ringfence.plugin.identity.directory import MAX_GROUPS, MAX_TEXT
from ringfence.plugin.identity.errors import DIRECTORY_MALFORMED, IdentityError
from ringfence.plugin.identity.names import checked
from ringfence.plugin.identity.settings import ScimDirectorySettings

MAX_PAGE: Final = 4 << 20
PAGE: Final = 100
_LIST: Final = "urn:ietf:params:scim:api:messages:2.0:ListResponse"


@dataclass(frozen=True, slots=True)
class Page:
    """The resources on a page, and how many there are on all pages."""

    total: int
    resources: tuple[Mapping[str, Any], ...]


class _ListResponse(msgspec.Struct, frozen=True):
    schemas: tuple[str, ...]
    total: Annotated[int, Meta(ge=0, le=10_000_000)] = msgspec.field(name="totalResults")
    resources: Annotated[tuple[dict[str, Any], ...], Meta(max_length=10_000)] = msgspec.field(
        name="Resources", default=()
    )


def decode(data: bytes) -> Page:
    """Raises `identity.directory_malformed` for anything but a list response of at most 4 MiB."""
    if len(data) > MAX_PAGE:
        raise _malformed(f"a page has {len(data)} bytes, more than {MAX_PAGE}")
    try:
        found = msgspec.json.decode(data, type=_ListResponse)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _malformed("a page is no list response") from None
    if _LIST not in found.schemas:
        raise _malformed("a page is no list response")
    return Page(found.total, found.resources)


def entries(
    users: Iterable[Mapping[str, Any]], groups: Iterable[Mapping[str, Any]], settings: ScimDirectorySettings
) -> dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """What a directory keeps of the users and groups of a server.

    Users that are not active, have no name, or one that may stand for nobody are left out. Raises
    `identity.directory_malformed` where two users have one name: whose groups they are could not be said.
    """
    member_of: dict[str, list[str]] = {}
    for group in groups:
        name, members = text(group, "displayName"), group.get("members")
        for member in members if name and isinstance(members, list) else ():
            if isinstance(member, dict) and (whom := text(member, "value")):
                member_of.setdefault(whom, []).append(name)
    found: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {}
    for user in users:
        principal = _name(text(user, settings.principal))
        if not principal or user.get("active", True) is not True:
            continue
        if principal in found:
            raise _malformed(f"two users are called {principal!r}")
        # A principal in more groups than count has none: which of them would count could not be said.
        held = tuple(dict.fromkeys(member_of.get(text(user, "id"), ())))
        values = {attribute: text(user, path) for attribute, path in settings.attributes.items()}
        found[principal] = (
            text(user, settings.tenant) if settings.tenant else "",
            held if len(held) <= MAX_GROUPS else (),
            tuple(f"{attribute}={value}" for attribute, value in values.items() if value),
        )
    return found


def text(resource: Mapping[str, Any], path: str) -> str:
    """The text at a SCIM attribute path such as "userName", "name.familyName" or "urn:…:User:department"; or "".

    Source: RFC 7644, section 3.10. Numbers and booleans are given as text; what is long or cannot be printed is "".
    """
    value: object = resource
    urn, colon, attribute = path.rpartition(":")
    steps = [urn, *attribute.split(".")] if colon else path.split(".")
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    match value:
        case bool():
            value = str(value).lower()
        case int():
            value = str(value)
    return value if isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable() else ""


def _name(candidate: str) -> str:
    try:
        return checked(candidate, field="userName")
    except IdentityError:
        return ""


def _malformed(why: str) -> IdentityError:
    return IdentityError(
        DIRECTORY_MALFORMED, f"The SCIM server's answer is refused: {why}.", field="scim", hint="Look at the server."
    )
