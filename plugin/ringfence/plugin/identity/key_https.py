"""An issuer's JWK set at its pinned address."""

from __future__ import annotations

from ringfence.plugin.identity.fetching import Fetcher, checked_url
from ringfence.plugin.identity.jwks import MAX_SET


class KeyAddress:
    """The set at `url`, through `fetcher`, within `timeout_s`."""

    def __init__(self, url: str, fetcher: Fetcher, *, timeout_s: float) -> None:
        self._url = checked_url(url, field="keys.url")
        self._fetcher = fetcher
        self._timeout_s = timeout_s

    async def load(self) -> bytes:
        return await self._fetcher.fetch(
            self._url, headers={"accept": "application/json"}, form=None, most=MAX_SET, timeout_s=self._timeout_s
        )
