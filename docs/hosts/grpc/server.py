"""A grpc.aio server that decides in its own process, over TLS with X25519MLKEM768 alone."""

from __future__ import annotations

import grpc
import grpc.aio

from ringfence.plugin.hosts.grpc_interceptor import HYBRID, GrpcSettings, RingfenceInterceptor
from ringfence.plugin.hosts.port import Gatekeeper


def server(gatekeeper: Gatekeeper, authority: str, key: bytes, certificate: bytes) -> tuple[grpc.aio.Server, int]:
    """The server, to be given its services and started, and the port that it will listen on."""
    settings = GrpcSettings(authority, group=HYBRID, exempt=("/grpc.health.v1.Health/Check",))
    guarded = grpc.aio.server(interceptors=[RingfenceInterceptor(gatekeeper, upstream="service", settings=settings)])
    port = guarded.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    return guarded, port
