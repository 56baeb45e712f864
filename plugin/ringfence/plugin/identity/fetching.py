"""Reading from another server over HTTPS: a pinned address, one deadline, a bound on the answer, no redirects."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import httpx

from ringfence.plugin.identity.errors import FETCH_FAILED, SETTINGS_INVALID, IdentityError

# One spelling, so that no two parsers disagree about which host it is (RFC 3986): no user, no fragment.
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[!-\"$-\[\]-~]*|\?[!-\"$-\[\]-~]*)?"
)


class Fetcher(Protocol):
    """One exchange with another server."""

    async def fetch(
        self, url: str, *, headers: Mapping[str, str], form: Mapping[str, str] | None, most: int, timeout_s: float
    ) -> bytes:
        """The body of the answer 200, at most `most` bytes: to a POST of `form`, or to a GET where it is None.

        Raises `identity.fetch_failed` for anything else, and when `timeout_s` is over.
        """
        ...


def checked_url(url: str, *, field: str) -> str:
    """`url`, where it is one that may be asked: https, or http on this host's own loopback addresses.

    Raises `identity.settings_invalid`. Keys and tokens that cross a network in the open prove nothing.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise _unusable(url, field)
    try:
        loopback = ipaddress.ip_address(match["host"].strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if match["scheme"] == "http" and not loopback:
        raise _unusable(url, field)
    return url


class HttpsFetcher:
    """Fetches over TLS that is verified against `authorities` (a PEM file), or the system's where it is None."""

    def __init__(self, authorities: Path | None = None) -> None:
        try:
            self._tls = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
        except (OSError, ssl.SSLError) as error:
            raise IdentityError(
                SETTINGS_INVALID,
                f"{authorities} holds no authorities that TLS could use ({type(error).__name__}).",
                field="authorities",
                hint="Write the authorities' certificates into it, in PEM.",
            ) from error

    async def fetch(
        self, url: str, *, headers: Mapping[str, str], form: Mapping[str, str] | None, most: int, timeout_s: float
    ) -> bytes:
        checked_url(url, field="url")
        # `trust_env=False`: no proxy and no credentials from the environment.
        client = httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=timeout_s)
        try:
            async with asyncio.timeout(timeout_s), client:
                request = client.build_request(
                    "GET" if form is None else "POST",
                    url,
                    # Compressed answers are not asked for: what they unfold to would have no bound.
                    headers={"accept-encoding": "identity", **headers},
                    data=None if form is None else dict(form),
                )
                response = await client.send(request, stream=True)
                if response.status_code != 200:
                    raise _failed(url, f"it answered {response.status_code}")
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise _failed(url, "its answer is compressed")
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > most:
                        raise _failed(url, f"its answer has more than {most} bytes")
                return bytes(body)
        except TimeoutError:
            raise _failed(url, f"it did not answer within {timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _failed(url, type(error).__name__) from None


def _failed(url: str, why: str) -> IdentityError:
    # Without the query: it may hold what is for that server alone.
    return IdentityError(
        FETCH_FAILED,
        f"{url.partition('?')[0]} cannot be read: {why}.",
        field="url",
        hint="Check the address, and that the gateway can reach it.",
    )


def _unusable(url: str, field: str) -> IdentityError:
    return IdentityError(
        SETTINGS_INVALID,
        f"{url.partition('?')[0]!r} cannot be asked: it is not https with a host, and without a user and a fragment.",
        field=field,
        hint="Write an address such as https://issuer.example/keys.",
    )
