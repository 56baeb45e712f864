"""Regions: what an operator calls the networks that requests come from, looked up by longest prefix.

A networks file is TOML: a table of regions, each with its networks in CIDR notation (RFC 4632, RFC 4291).

    version = 1

    [regions]
    office = ["192.0.2.0/24", "2001:db8:1::/48"]
    vpn = ["198.51.100.0/25"]
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from ringfence.config import convert, tables
from ringfence.plugin.risk.errors import NETWORKS_MALFORMED, RiskError

MAX_NETWORKS: Final = 65_536
MAX_REMEMBERED: Final = 16_384
MAX_ADDRESS: Final = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")
_MAPPED = 0xFFFF << 32
_ALL = (1 << 128) - 1

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Networks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    regions: Annotated[dict[str, tuple[str, ...]], msgspec.Meta(max_length=4096)] = {}


class Regions:
    """Addresses to names of regions; "" for an address in no network, and for what is no address.

    The networks are laid out once as ranges that do not overlap, each with the name of the longest prefix over it, so
    that a look-up is one bisection. The last addresses are remembered, up to a bound. IPv4 addresses and their mapped
    form (RFC 4291 section 2.5.5.2) are the same, so that nobody changes region by writing an address differently.
    """

    __slots__ = ("_names", "_recent", "_starts")

    def __init__(self, networks: Mapping[str, Sequence[Network]]) -> None:
        spans = sorted(
            ((*_span(network), region) for region, listed in networks.items() for network in listed),
            key=lambda span: (span[0], -span[1]),
        )
        self._starts, self._names = _flatten(spans)
        self._recent: OrderedDict[str, str] = OrderedDict()

    def region(self, address: str) -> str:
        """The region of an address as text."""
        found = self._recent.get(address)
        if found is None:
            found = self._find(address)
            # Only what an address could be is remembered, and never more than the bound.
            if len(self._recent) >= MAX_REMEMBERED:
                self._recent.popitem(last=False)
            if len(address) <= MAX_ADDRESS:
                self._recent[address] = found
        return found

    def _find(self, address: str) -> str:
        try:
            value = _value(ipaddress.ip_address(address))
        except ValueError:
            return ""
        index = bisect_right(self._starts, value) - 1
        return self._names[index] if index >= 0 else ""


def parse_networks(data: bytes, source: str) -> Regions:
    """The regions in the bytes of a networks file; `source` names it in errors. Reads no file.

    Raises `ConfigError` with the line where the file has another shape, `RiskError` risk.networks_malformed for a name
    or a network that cannot be meant, for one network in two regions, and for more than `MAX_NETWORKS` of them.
    """
    values, text = tables(data, source)
    hint = "docs/risk.md shows a networks file."
    wire = convert(values, text, _Networks, source=source, folder=Path(), hint=hint)
    if sum(map(len, wire.regions.values())) > MAX_NETWORKS:
        raise _malformed(source, f"it has more than {MAX_NETWORKS} networks", "regions")
    found: dict[str, list[Network]] = {}
    owners: dict[Network, str] = {}
    for region, listed in wire.regions.items():
        if not _NAME.fullmatch(region):
            raise _malformed(source, f"{region!r} cannot name a region", "regions")
        for written in listed:
            try:
                network = ipaddress.ip_network(written)
            except ValueError as error:
                raise _malformed(source, f"{error}", f"regions.{region}") from None
            if owners.setdefault(network, region) != region:
                raise _malformed(source, f"{network} is in {owners[network]!r} too", f"regions.{region}")
            found.setdefault(region, []).append(network)
    return Regions(found)


def _value(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    return _MAPPED | int(address) if address.version == 4 else int(address)


def _span(network: Network) -> tuple[int, int]:
    """The first and the last address of a network, in the space of IPv6."""
    return _value(network.network_address), _value(network.broadcast_address)


def _flatten(spans: Sequence[tuple[int, int, str]]) -> tuple[list[int], list[str]]:
    """Where each stretch of one name begins, for spans that are nested or apart, wider ones first."""
    starts: list[int] = []
    names: list[str] = []

    def begin(start: int, name: str) -> None:
        if start > _ALL:
            return
        if starts and starts[-1] == start:
            names[-1] = name
        else:
            starts.append(start)
            names.append(name)

    around: list[tuple[int, str]] = []
    for first, last, name in spans:
        while around and around[-1][0] < first:
            end, _ = around.pop()
            begin(end + 1, around[-1][1] if around else "")
        begin(first, name)
        around.append((last, name))
    while around:
        end, _ = around.pop()
        begin(end + 1, around[-1][1] if around else "")
    return starts, names


def _malformed(source: str, why: str, field: str) -> RiskError:
    return RiskError(
        NETWORKS_MALFORMED,
        f"{source}: {why}.",
        field=field,
        hint="Write each network as CIDR with no host bits set, once.",
    )
