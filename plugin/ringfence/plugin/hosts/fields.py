"""Header fields: what every adapter refuses and removes before the decision core sees a request. Pure.

Threats: a caller that sets a field which only Ringfence or the host sets; a `Connection` field that makes the next hop
drop a field which the signature covers, or one of Ringfence's (RFC 9110 section 7.6.1, "hop-by-hop header abuse").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from ringfence.plugin.hosts.errors import (
    CONNECTION_NAMES_FIELD,
    FIELDS_MALFORMED,
    FIELDS_TOO_LARGE,
    OWN_FIELD,
    HostError,
)
from ringfence.plugin.hosts.port import OWN_PREFIX

Fields = Sequence[tuple[str, str]]

MAX_FIELDS: Final = 128
MAX_BYTES: Final = 32 * 1024
"""Of all names and values of a request together."""

PROTECTED: Final = frozenset(
    {"authorization", "content-digest", "content-length", "cookie", "dpop", "host", "signature", "signature-input"}
)
"""Fields that a signature covers or that authenticate, or that frame the message."""

FORWARDING: Final = frozenset({"forwarded", "x-real-ip"})
_FORWARDING_PREFIX: Final = "x-forwarded-"
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]*")


def check_fields(headers: Fields) -> None:
    """Refuses fields that must not reach a decision. `headers` have lower-case names.

    Raises `hosts.fields_too_large` past `MAX_FIELDS` or `MAX_BYTES`, `hosts.fields_malformed` for a name or value that
    RFC 9110 does not allow or that is not ASCII, and for an underscore look-alike of a protected or own field, and
    `hosts.connection_names_field` where `Connection` names a protected field or one with Ringfence's prefix.
    """
    if len(headers) > MAX_FIELDS:
        raise HostError(FIELDS_TOO_LARGE, f"There are more than {MAX_FIELDS} header fields.", field="headers")
    # All at once: this runs for every request, and most are well-formed.
    names = [name for name, _ in headers]
    joined = "".join(names)
    values = "".join([value for _, value in headers])
    if len(joined) + len(values) > MAX_BYTES:
        raise HostError(FIELDS_TOO_LARGE, f"The header fields have more than {MAX_BYTES} bytes.", field="headers")
    if not _NAME.fullmatch(joined) or "" in names or not (values.isascii() and _printable(values)):
        raise HostError(FIELDS_MALFORMED, "A header field has a byte that it must not have.", field="headers")
    if "_" in joined:
        for name in names:
            _refuse_lookalike(name)
    if "connection" in joined:
        for name, value in headers:
            if name in ("connection", "proxy-connection"):
                check_connection(value)


def _printable(text: str) -> bool:
    # RFC 9110 section 5.5, without obs-text: no adapter hands bytes on that two programs read differently.
    return text.isprintable() or text.replace("\t", " ").isprintable()


def check_connection(value: str) -> None:
    """Raises `hosts.connection_names_field` where a `Connection` field names what no hop may drop."""
    if value == "keep-alive" or value == "close":
        return
    for option in value.split(","):
        name = option.strip(" \t").lower()
        if name in PROTECTED or name.startswith(OWN_PREFIX):
            raise HostError(
                CONNECTION_NAMES_FIELD,
                "The Connection field asks the next hop to drop a field that protects this request.",
                field="connection",
                hint="Name no such field in Connection.",
            )


def refuse_own(headers: Iterable[tuple[str, str]]) -> None:
    """Raises `hosts.own_field` where a caller sent a field with Ringfence's prefix, for hosts that cannot strip it."""
    for name, _ in headers:
        if name.startswith(OWN_PREFIX):
            raise HostError(
                OWN_FIELD,
                "Fields that begin with X-Ringfence- are set by the gateway alone.",
                field="headers",
                hint="Leave the field out.",
            )


INITIALS: Final = "fx"
"""The first letters of the fields that `set_by_others` knows: a look at one spares most fields the rest."""


def set_by_others(name: str) -> bool:
    """Whether a field is one that only Ringfence or a hop sets: it is removed from what a caller sends."""
    return name.startswith(OWN_PREFIX) or is_forwarding(name)


def is_forwarding(name: str) -> bool:
    """Whether a hop says by this field whom it forwards for; such fields are overwritten, never passed on."""
    return name.startswith(_FORWARDING_PREFIX) or name in FORWARDING


def single(headers: Iterable[tuple[str, str]], name: str) -> str:
    """The value of the field `name`, "" where it is absent. Raises `hosts.fields_malformed` where it is repeated."""
    values = [value for candidate, value in headers if candidate == name]
    if len(values) > 1:
        raise HostError(FIELDS_MALFORMED, "The field appears more than once.", field=name)
    return values[0] if values else ""


def _refuse_lookalike(name: str) -> None:
    # CGI and WSGI make `X_Ringfence_Assertion` and `X-Ringfence-Assertion` one variable.
    plain = name.replace("_", "-")
    if plain == name:
        return
    if plain in PROTECTED or plain.startswith(OWN_PREFIX) or is_forwarding(plain):
        raise HostError(
            FIELDS_MALFORMED, "A header field looks like a protected one, with underscores.", field="headers"
        )
