"""The networks file, and the look-up of an address's region by longest prefix."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.config import ConfigError
from ringfence.plugin.risk.errors import RiskError
from ringfence.plugin.risk.networks import parse_networks
from ringfence.plugin.risk.regions import MAX_REMEMBERED, Network, Regions

FILE = b"""\
version = 1

[regions]
office = ["192.0.2.0/24", "2001:db8:1::/48"]
laboratory = ["192.0.2.128/25"]
vpn = ["198.51.100.0/25"]
"""


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("192.0.2.1", "office"),
        ("192.0.2.127", "office"),
        ("192.0.2.128", "laboratory"),
        ("192.0.2.255", "laboratory"),
        ("192.0.3.0", ""),
        ("192.0.1.255", ""),
        ("::ffff:192.0.2.1", "office"),
        ("2001:db8:1:ffff::1", "office"),
        ("2001:db8:2::", ""),
        ("198.51.100.126", "vpn"),
        ("unix", ""),
        ("", ""),
        ("192.0.2.1:80", ""),
        ("192.0.2.01", ""),
    ],
)
def test_an_address_has_the_region_of_its_longest_prefix(address: str, region: str) -> None:
    regions = parse_networks(FILE, "networks.toml")
    assert regions.region(address) == region
    assert regions.region(address) == region
    assert Regions({}).region(address) == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "config.missing_key"),
        ("version = 2\n[regions]", "config.bad_value"),
        ("version = 1\nregion = {}", "config.unknown_key"),
        ('version = 1\n[regions]\noffice = "192.0.2.0/24"', "config.bad_value"),
        ('version = 1\n[regions]\noffice = ["192.0.2.1/24"]', "risk.networks_malformed"),
        ('version = 1\n[regions]\noffice = ["192.0.2.0/33"]', "risk.networks_malformed"),
        ('version = 1\n[regions]\noffice = ["x"]', "risk.networks_malformed"),
        ('version = 1\n[regions]\n"@" = ["192.0.2.0/24"]', "risk.networks_malformed"),
        ('version = 1\n[regions]\na = ["192.0.2.0/24"]\nb = ["192.0.2.0/24"]', "risk.networks_malformed"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(text: str, code: str) -> None:
    with pytest.raises((ConfigError, RiskError), match=code.replace(".", r"\.")):
        parse_networks(text.encode(), "networks.toml")


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    regions = parse_networks(FILE, "networks.toml")
    for number in range(MAX_REMEMBERED + 100):
        regions.region(str(ipaddress.ip_address(number + (10 << 24))))
    regions.region("x" * 10_000)
    assert len(regions._recent) <= MAX_REMEMBERED  # noqa: SLF001 - the bound is what this is about
    assert regions.region("192.0.2.200") == "laboratory"


def _networks() -> st.SearchStrategy[list[Network]]:
    # Few addresses, so that networks lie in one another.
    v4 = st.builds(
        lambda value, bits: ipaddress.ip_network((value << 24, bits), strict=False),
        st.integers(0, 7),
        st.integers(0, 10),
    )
    v6 = st.builds(
        lambda value, bits: ipaddress.ip_network((value << 120, bits), strict=False),
        st.integers(0, 7),
        st.integers(0, 10),
    )
    return st.lists(st.one_of(v4, v6), max_size=12, unique=True)


@given(_networks(), st.lists(st.integers(0, 7), max_size=8))
@settings(deadline=None)
def test_the_flattened_ranges_agree_with_the_definition(networks: list[Network], values: list[int]) -> None:
    regions = Regions({str(network): [network] for network in networks})
    for value in values:
        for address in (ipaddress.IPv4Address(value << 24 | 1), ipaddress.IPv6Address(value << 120 | 1)):
            around = [network for network in networks if address in network]
            # A network of IPv6 that spans the mapped addresses holds the IPv4 ones as well.
            if address.version == 4:
                mapped = ipaddress.IPv6Address(0xFFFF << 32 | int(address))
                around = around or [network for network in networks if mapped in network]
            wanted = str(max(around, key=lambda network: network.prefixlen)) if around else ""
            assert regions.region(str(address)) == wanted
