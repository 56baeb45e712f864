"""A directory that a SCIM 2.0 server keeps, read whole and never written. Source: RFC 7644, section 3.4.2.4."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from ringfence.plugin.identity import scim_pages
from ringfence.plugin.identity.directory import Snapshot
from ringfence.plugin.identity.errors import DIRECTORY_UNAVAILABLE, IdentityError
from ringfence.plugin.identity.fetching import Fetcher, checked_url
from ringfence.plugin.identity.secret_file import read_secret
from ringfence.plugin.identity.settings import ScimDirectorySettings


class ScimSource:
    """Pulls all users and groups of the server in `settings`, page by page, through `fetcher`."""

    def __init__(self, settings: ScimDirectorySettings, fetcher: Fetcher) -> None:
        self._settings = settings
        self._url = checked_url(settings.url, field="directory.url").rstrip("/")
        self._fetcher = fetcher

    async def load(self, *, now: int) -> Snapshot:
        """All of it within `timeout_s`. Raises `identity.directory_unavailable`, `_directory_malformed`."""
        token = await asyncio.to_thread(read_secret, self._settings.token)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                users = await self._all("Users", token)
                groups = await self._all("Groups", token)
        except TimeoutError:
            raise _unavailable(f"it took longer than {self._settings.timeout_s:g} s") from None
        return Snapshot(scim_pages.entries(users, groups, self._settings), now)

    async def _all(self, kind: str, token: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        while True:
            query = urlencode({"startIndex": len(found) + 1, "count": scim_pages.PAGE})
            data = await self._fetcher.fetch(
                f"{self._url}/{kind}?{query}",
                headers={"accept": "application/scim+json", "authorization": f"Bearer {token}"},
                form=None,
                most=scim_pages.MAX_PAGE,
                timeout_s=self._settings.timeout_s,
            )
            page = scim_pages.decode(data)
            found += page.resources
            if page.total > self._settings.max_users or len(found) > page.total:
                raise _unavailable(f"it has more {kind} than it says, or than {self._settings.max_users}")
            if len(found) == page.total:
                return found
            if not page.resources:
                # A part of a directory could lack just the group that a policy forbids something to.
                raise _unavailable(f"it gave {len(found)} of {page.total} {kind}")


def _unavailable(why: str) -> IdentityError:
    return IdentityError(
        DIRECTORY_UNAVAILABLE, f"The SCIM server cannot be used: {why}.", field="scim", hint="Look at the server."
    )
