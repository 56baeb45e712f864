"""The networks file: TOML, a table of regions, each with its networks in CIDR notation (RFC 4632, RFC 4291).

version = 1

[regions]
office = ["192.0.2.0/24", "2001:db8:1::/48"]
vpn = ["198.51.100.0/25"]
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from ringfence.config import convert, tables
from ringfence.plugin.risk.errors import NETWORKS_MALFORMED, RiskError
from ringfence.plugin.risk.regions import Network, Regions

MAX_NETWORKS: Final = 65_536
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")


class _Networks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    regions: Annotated[dict[str, tuple[str, ...]], msgspec.Meta(max_length=4096)] = {}


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


def _malformed(source: str, why: str, field: str) -> RiskError:
    return RiskError(
        NETWORKS_MALFORMED,
        f"{source}: {why}.",
        field=field,
        hint="Write each network as CIDR with no host bits set, once.",
    )
