"""The configuration of the Envoy adapter."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ringfence.config import SocketPath
from ringfence.plugin.hosts.http2.limits import Http2Limits

UserId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]


class ExtAuthzSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Envoy asks, and what the adapter believes of what it says.

    `users` are the user ids that Envoy may run as: nobody else may speak for callers. `upstreams` are the names that a
    route may give in its context extension `ringfence_upstream`. `trusted_hops` proxies stand between the callers and
    this Envoy, and each has added its own caller to `x-forwarded-for`.
    """

    socket: SocketPath
    users: Annotated[tuple[UserId, ...], msgspec.Meta(min_length=1)]
    upstreams: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    trusted_hops: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    socket_mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o600
    certificates: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1024
    limits: Http2Limits = Http2Limits()
