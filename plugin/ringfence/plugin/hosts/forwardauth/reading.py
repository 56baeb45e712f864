"""A forward-auth request as an `Inbound`. Pure.

The host sends the caller's fields and, beside them, what it alone knows, in fields that its configuration overwrites
whatever the caller sent:

| field | what |
|---|---|
| `X-Original-Method` | the method |
| `X-Original-URI` | path and query, raw |
| `X-Original-Host` | the authority |
| `X-Original-Address` | the address of the connection's peer |
| `X-Original-Protocol` | `HTTP/1.1`, `HTTP/2.0` … |
| `X-Original-Forwarded-For` | the `X-Forwarded-For` that came in, where hops are configured |
| `X-Original-Connection`, `-Content-Length`, `-Transfer-Encoding` | these fields as they came in |
| `X-Original-Certificate` | the client's certificate: PEM, percent-encoded, or DER in base64 |

They are believed because of who the peer of the Unix socket is, and for no other reason.
"""

from __future__ import annotations

import re
from typing import Final

from ringfence import httpsig
from ringfence.plugin.hosts.certificates import read_certificate
from ringfence.plugin.hosts.errors import FIELDS_MALFORMED, UPSTREAM_UNKNOWN, HostError
from ringfence.plugin.hosts.fields import INITIALS, check_connection, check_fields, is_forwarding, refuse_own
from ringfence.plugin.hosts.framing import read_framing
from ringfence.plugin.hosts.hops import Hops, client_address
from ringfence.plugin.hosts.port import Inbound
from ringfence.plugin.hosts.targets import read_target

ORIGINAL: Final = "x-original-"
AUTH: Final = "/auth/"
AUTH_REQUEST: Final = "/auth-request/"
ENVOY: Final = "/envoy/"

_KNOWN: Final = frozenset(
    ("method", "uri", "host", "address", "protocol", "forwarded-for", "connection", "content-length",
     "transfer-encoding", "certificate")
)  # fmt: skip
# What the host's own connection to us needs, and what it says again under the names above.
_HOP: Final = frozenset(("host", "connection", "content-length", "transfer-encoding", "keep-alive", "te", "upgrade"))
_UPSTREAM = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")

Headers = list[tuple[str, str]]


def upstream_of(target: str, prefix: str) -> tuple[str, str]:
    """The upstream's name after `prefix`, and what follows it. Raises `hosts.upstream_unknown` for no name."""
    name, slash, rest = target.removeprefix(prefix).partition("/")
    if not _UPSTREAM.fullmatch(name):
        raise HostError(
            UPSTREAM_UNKNOWN,
            "The path of the question names no upstream.",
            field="path",
            hint=f"Have the host ask {prefix}NAME, with the upstream's configured name.",
        )
    return name, slash + rest


def read_question(upstream: str, headers: Headers, hops: Hops) -> Inbound:
    """The request that nginx or Caddy asks about. Raises `HostError`."""
    original, fields = _separate(headers)
    target = read_target(original.get("method", ""), original.get("host", ""), original.get("uri", ""))
    return _inbound(upstream, target, original, fields, hops)


def read_envoy(upstream: str, method: str, raw: str, headers: Headers, hops: Hops) -> Inbound:
    """The request that Envoy asks about: it sends method and path as they are, behind its path prefix.

    Raises `HostError`.
    """
    original, fields = _separate(headers)
    authority = [value for name, value in headers if name == "host"]
    if len(authority) != 1 or "method" in original or "uri" in original or "host" in original:
        raise HostError(FIELDS_MALFORMED, "The question names its target twice, or not at all.", field="host")
    return _inbound(upstream, read_target(method, authority[0], raw), original, fields, hops)


def _separate(headers: Headers) -> tuple[dict[str, str], Headers]:
    """What the host says, and the caller's fields."""
    check_fields(headers)
    original: dict[str, str] = {}
    fields: Headers = []
    for pair in headers:
        name = pair[0]
        if name[0] in INITIALS:
            if name.startswith(ORIGINAL):
                key = name[len(ORIGINAL) :]
                if key not in _KNOWN or key in original:
                    # A configuration that does not overwrite a field lets the caller's copy through beside its own.
                    raise HostError(FIELDS_MALFORMED, "A field of the host is unknown or repeated.", field=name)
                original[key] = pair[1]
                continue
            if is_forwarding(name):
                continue
            refuse_own((pair,))
        if name not in _HOP:
            fields.append(pair)
    return original, fields


def _inbound(upstream: str, target: httpsig.Target, original: dict[str, str], fields: Headers, hops: Hops) -> Inbound:
    if original.get("connection"):
        check_connection(original["connection"])
        fields.append(("connection", original["connection"]))
    fields.insert(0, ("host", target.authority))
    for name in ("content-length", "transfer-encoding"):
        if original.get(name):
            fields.append((name, original[name]))
    forwarded = original.get("forwarded-for", "")
    return Inbound(
        target=target,
        headers=fields,
        source=client_address(original.get("address", ""), (forwarded,) if forwarded else (), hops),
        upstream=upstream,
        body=read_framing(
            original.get("protocol", ""), original.get("content-length", ""), original.get("transfer-encoding", "")
        ),
        channel=read_certificate(_filled(original.get("certificate", ""))),
    )


def _filled(value: str) -> str:
    # Caddy leaves a placeholder as it is where a connection has no certificate.
    return "" if value.startswith("{http.request.tls.client.") else value
