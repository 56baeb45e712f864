"""A Starlette service behind nginx, HAProxy, Caddy or Envoy: it verifies the assertion and the body before it acts."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ringfence.plugin.upstream.asgi import CLAIMS, AssertedMiddleware
from ringfence.plugin.upstream.desk import UpstreamSettings


async def items(request: Request) -> PlainTextResponse:
    """What the gateway asserts is in the scope; the body is the one that the caller signed."""
    claims = request.scope[CLAIMS]
    return PlainTextResponse(f"{claims.sub} sent {len(await request.body())} bytes")


def upstream(keys: str, gateway: str) -> Starlette:
    """`keys` is a file with the gateway's published keys, `gateway` its key id."""
    settings = UpstreamSettings(name="service", gateway=gateway, keys=keys)
    return Starlette(
        routes=[Route("/items", items, methods=["POST"])],
        middleware=[Middleware(AssertedMiddleware, settings=settings)],
    )
