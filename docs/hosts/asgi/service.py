"""A FastAPI service that decides in its own process."""

from __future__ import annotations

from fastapi import FastAPI

from ringfence.plugin.hosts.asgi import AsgiSettings, RingfenceMiddleware
from ringfence.plugin.hosts.exemptions import Exemptions
from ringfence.plugin.hosts.port import Gatekeeper

SETTINGS = AsgiSettings(
    hops=("10.0.0.0/8",),  # proxies of one's own, whose X-Forwarded-For is believed
    exemptions=Exemptions(exempt=("/healthz",), preflight=("https://app.example.org",)),
    body_bytes=1024 * 1024,  # a larger body is refused; `body="hidden"` streams it unverified
)


def service(gatekeeper: Gatekeeper) -> FastAPI:
    """The application behind the gate."""
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    @app.post("/items")
    async def items() -> str:
        return "decided"

    # Added last, so that it is the outermost.
    app.add_middleware(RingfenceMiddleware, gatekeeper=gatekeeper, upstream="service", settings=SETTINGS)
    return app
