"""The HTTP server of the built-in gateway: uvicorn, with bounded connections and nothing that strangers could use."""

from __future__ import annotations

from typing import Final

import uvicorn

from ringfence.plugin.builtin.app import GatewayApp
from ringfence.plugin.builtin.connections import HEADER_BYTES, guarded_protocol

GRACE_S: Final = 5
"""How long requests under way have to end, once the server is told to."""


def server_config(app: GatewayApp, *, connections: int, header_timeout_s: float) -> uvicorn.Config:
    """A server's configuration, with at most `connections` open at a time."""
    return uvicorn.Config(
        app,
        http=guarded_protocol(limit=connections, header_timeout_s=header_timeout_s),
        h11_max_incomplete_event_size=HEADER_BYTES,
        lifespan="off",
        log_config=None,
        # Its warnings are about requests that do not parse: a stranger could write as many lines as it likes.
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
    )
