"""A CheckRequest of Envoy as an `Inbound`. Pure.

By Envoy's documentation of `envoy.service.auth.v3`. Nothing in it is believed beyond what the configuration says that
Envoy itself has written: the address it was connected from, the certificate it was shown, the route's own extensions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from google.protobuf.message import DecodeError

from ringfence.httpsig import Target
from ringfence.plugin.hosts.extauthz._pb import check_pb2
from ringfence.plugin.hosts.extauthz.errors import (
    MALFORMED,
    MISCONFIGURED,
    REQUEST_REFUSED,
    SOURCE_UNKNOWN,
    ExtAuthzError,
)
from ringfence.plugin.hosts.port import OWN_PREFIX, Channel, Inbound, Unseen

UPSTREAM: Final = b"ringfence_upstream"
"""The context extension by which a route names its upstream."""

BODY: Final = b"ringfence_body"
"""The context extension by which a route says whether Envoy shows bodies: `shown` beside `with_request_body`."""

_PARTIAL: Final = "x-envoy-auth-partial-body"
_METHOD: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# Envoy joins two Host fields by a comma; nothing that two programs may read as two hosts is a host here.
_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
# What a signature covers or identity rests on: a Connection field that names one asks a hop to drop it (RFC 9110
# section 7.6.1), so that this gate and the upstream would see two requests.
_COVERED: Final = frozenset(
    (
        *("authorization", "content-digest", "content-length", "content-type", "cookie", "dpop", "forwarded", "host"),
        *("signature", "signature-input", "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-proto"),
    )
)


@dataclass(frozen=True, slots=True)
class Trust:
    """What the configuration says: the names that a route may give, and the proxies in front of Envoy."""

    upstreams: frozenset[str]
    hops: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """A request to decide on, and the names of the fields that its caller had no right to send."""

    inbound: Inbound
    stripped: frozenset[str]


def read_check(message: bytes, trust: Trust, channel: Callable[[bytes], Channel]) -> Check:
    """The request that Envoy asks about; `channel` reads a certificate. Raises `ExtAuthzError`.

    `extauthz.malformed` and `extauthz.misconfigured` are Envoy's or its configuration's doing, the others the caller's.
    """
    try:
        attributes = check_pb2.CheckRequest.FromString(message).attributes
    except DecodeError as error:
        raise ExtAuthzError(MALFORMED, "The message is no CheckRequest.") from error
    http = attributes.request.http
    pseudo, headers, stripped, partial = _fields(http)
    extensions = {one.key: one.value for one in attributes.context_extensions}
    return Check(
        Inbound(
            _target(pseudo, http),
            headers,
            _source(attributes.source.address.socket_address.address, headers, trust.hops),
            _upstream(extensions, trust),
            _body(http, partial, headers, extensions.get(BODY) == b"shown"),
            channel(attributes.source.certificate),
        ),
        stripped,
    )


def is_own(name: str) -> bool:
    """Whether only Ringfence sets this field. An underscore counts as a hyphen, as in CGI and WSGI upstreams."""
    return name.replace("_", "-").startswith(OWN_PREFIX)


def _fields(
    http: check_pb2.HttpRequest,
) -> tuple[dict[str, str], tuple[tuple[str, str], ...], frozenset[str], str | None]:
    pseudo: dict[str, str] = {}
    headers: list[tuple[str, str]] = []
    stripped: set[str] = set()
    partial = None
    for one in http.header_map.headers:
        # Latin-1 keeps every byte; names and the target are held to ASCII below.
        name, value = str(one.key, "latin-1"), str(one.raw_value, "latin-1")
        if name.startswith(":"):
            if name in pseudo:
                raise ExtAuthzError(MALFORMED, f"The field {name} is there twice.")
            pseudo[name] = value
        elif name == _PARTIAL:
            # Envoy drops what a caller sends under this name, and says so itself where it has buffered a body.
            partial = value if partial is None else "true"
        elif name[:1] == "x" and is_own(name):
            stripped.add(name)
        else:
            if name == "connection":
                _check_connection(value)
            headers.append((name, value))
    if not pseudo:
        raise ExtAuthzError(
            MISCONFIGURED,
            "Envoy does not pass on the fields as it has received them.",
            field="encode_raw_headers",
            hint="Set `encode_raw_headers: true` in the ext_authz filter.",
        )
    return pseudo, tuple(headers), frozenset(stripped), partial


def _check_connection(value: str) -> None:
    for token in value.lower().split(","):
        name = token.strip()
        if name in _COVERED or is_own(name):
            raise ExtAuthzError(
                REQUEST_REFUSED,
                "A Connection field names a field that must reach the upstream.",
                field="connection",
                hint="Name only fields of this connection in it.",
            )


def _target(pseudo: dict[str, str], http: check_pb2.HttpRequest) -> Target:
    method, authority, raw = pseudo.get(":method", ""), pseudo.get(":authority", ""), pseudo.get(":path", "")
    if not method or not _METHOD.issuperset(method):
        raise ExtAuthzError(REQUEST_REFUSED, "The method is no token.", field=":method")
    if not _AUTHORITY.fullmatch(authority):
        raise ExtAuthzError(REQUEST_REFUSED, "The authority is missing, or not one host and port.", field=":authority")
    if not raw.startswith("/") or not (raw.isascii() and raw.isprintable()) or " " in raw or "#" in raw:
        raise ExtAuthzError(
            REQUEST_REFUSED,
            "The target is no absolute path in printable ASCII without a fragment.",
            field=":path",
            hint="Percent-encode every other character.",
        )
    # Two ideas of one request in a single message: another filter has rewritten it.
    if (http.method, http.host, http.path) != (method.encode(), authority.encode(), raw.encode()):
        raise ExtAuthzError(MALFORMED, "Envoy's attributes and fields disagree about the target.")
    path, mark, query = raw.partition("?")
    return Target(method, authority, path, mark + query if mark else "?")


def _upstream(extensions: dict[bytes, bytes], trust: Trust) -> str:
    name = extensions.get(UPSTREAM, b"").decode("latin-1")
    if name not in trust.upstreams:
        raise ExtAuthzError(
            MISCONFIGURED,
            f"The route names the upstream {name!r}, which is not configured."
            if name
            else "The route has no upstream.",
            field=UPSTREAM.decode(),
            hint="Give the route the context extension `ringfence_upstream` with a configured name.",
        )
    return name


def _source(connected: bytes, headers: tuple[tuple[str, str], ...], hops: int) -> str:
    # Envoy adds the address it was connected from to `x-forwarded-for` last (`use_remote_address`), after what the
    # trusted hops added; anything before that a caller may have written itself.
    address = connected.decode("latin-1")
    if hops:
        forwarded = [part.strip() for name, value in headers if name == "x-forwarded-for" for part in value.split(",")]
        address = forwarded[-1 - hops] if len(forwarded) > hops else ""
    try:
        return str(ip_address(address))
    except ValueError as error:
        raise ExtAuthzError(
            SOURCE_UNKNOWN,
            "The caller's address is not known.",
            field="x-forwarded-for" if hops else "attributes.source.address",
            hint="Configure `trusted_hops` as the number of proxies in front of this Envoy.",
        ) from error


def _body(
    http: check_pb2.HttpRequest, partial: str | None, headers: tuple[tuple[str, str], ...], shown: bool
) -> bytes | Unseen:
    if partial is not None:
        return (http.raw_body or http.body) if partial == "false" else Unseen.PARTIAL
    if http.raw_body or http.body:
        return Unseen.PARTIAL  # nothing says that this is all of it
    # Envoy removes Transfer-Encoding before it asks, so that no field can say that a request has no body.
    if shown:
        return Unseen.ABSENT
    return Unseen.ABSENT if [value for name, value in headers if name == "content-length"] == ["0"] else Unseen.HIDDEN
