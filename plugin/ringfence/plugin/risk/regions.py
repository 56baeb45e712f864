"""Regions: what an operator calls the networks that requests come from, looked up by longest prefix."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

MAX_REMEMBERED: Final = 16_384
MAX_ADDRESS: Final = 64
_MAPPED = 0xFFFF << 32
_ALL = (1 << 128) - 1

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
