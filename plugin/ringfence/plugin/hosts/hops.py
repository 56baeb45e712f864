"""The client's address, from configured hops only. Pure.

`X-Forwarded-For` is a claim of whoever sent it. Each trusted hop appends the address that it saw, so the list is read
from its right end: as long as the address before is a trusted hop's, its claim counts; the first address that is no
hop's is the client. Whatever stands to the left of it was sent by the client, and is not read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from ringfence.plugin.hosts.errors import ADDRESS_MALFORMED, HostError

UNIX: Final = "unix"
"""The address of a peer on a Unix socket, which has none."""

MAX_HOPS: Final = 32
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HopNetwork(str):
    """A network of one's own proxies in a configuration file, such as "10.0.0.0/8" or "fd00::/8"."""

    __slots__ = ()

    @classmethod
    def from_text(cls, text: str, _folder: object) -> Self:
        """The network that `text` writes. Raises `ValueError` for what is none, or has host bits set."""
        return cls(ipaddress.ip_network(text))


@dataclass(frozen=True, slots=True)
class Hops:
    """The networks whose hosts are proxies of one's own; with none, the peer is the client."""

    networks: tuple[_Network, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Hops:
        """From networks such as "10.0.0.0/8". Raises `ValueError` for what is none, or has host bits set."""
        return cls(tuple(ipaddress.ip_network(text) for text in texts))

    def trusts(self, address: _Address) -> bool:
        """Whether `address` is one of one's own proxies."""
        return any(address.version == network.version and address in network for network in self.networks)


NO_HOPS: Final = Hops()


def client_address(peer: str, forwarded: Iterable[str], hops: Hops) -> str:
    """The client's address in its canonical spelling.

    `peer` is the address that the host itself saw; `forwarded` the `X-Forwarded-For` fields in their order. Without
    hops they are not read. Raises `hosts.address_malformed` where `peer` is no address, where a trusted hop's claim is
    malformed, or where there are more than `MAX_HOPS` of them: a hop that cannot be understood names nobody.
    """
    if peer == UNIX:
        return UNIX
    address = _address(peer)
    if not hops.networks or not hops.trusts(address):
        return str(address)
    claims = [part for field in forwarded for part in field.split(",")]
    for walked, claim in enumerate(reversed(claims)):
        if walked == MAX_HOPS:
            raise HostError(ADDRESS_MALFORMED, f"There are more than {MAX_HOPS} hops.", field="x-forwarded-for")
        address = _address(claim.strip(" \t"))
        if not hops.trusts(address):
            break
    return str(address)


def _address(text: str) -> _Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise HostError(
            ADDRESS_MALFORMED,
            "A hop names a client by what is no address.",
            field="x-forwarded-for",
            hint="Have every proxy append the address that it saw, without a port.",
        ) from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise HostError(ADDRESS_MALFORMED, "An address has a zone.", field="x-forwarded-for")
        # One client has one spelling, however a dual-stack socket showed it.
        return address.ipv4_mapped or address
    return address
