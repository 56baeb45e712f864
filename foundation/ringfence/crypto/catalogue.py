"""Every algorithm with who provides it: what `ringfence crypto list` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ringfence.crypto import aeads, hpke_suites
from ringfence.crypto.offers import Family, Offer, Standing
from ringfence.crypto.ports import Provider
from ringfence.crypto.providers import PROVIDERS

# What has one provider, which Ringfence cannot do without.
_FIXED: Final[Mapping[str, Sequence[Offer]]] = {
    "cryptography": (
        *hpke_suites.OFFERS,
        *aeads.OFFERS,
        Offer("HKDF-SHA256", Family.KDF, "RFC 5869", Standing.STANDARD),
    ),
    "hashlib": (
        Offer("HMAC-SHA256", Family.MAC, "RFC 2104, FIPS 198-1", Standing.STANDARD),
        Offer("SHA-256", Family.HASH, "FIPS 180-4", Standing.STANDARD),
    ),
    "blake3": (Offer("BLAKE3", Family.HASH, "draft-aumasson-blake3", Standing.DRAFT),),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One algorithm of one provider. `absence` says why it is unavailable; `used` that it is what callers get."""

    offer: Offer
    provider: str
    absence: str
    used: bool


def entries(providers: Sequence[Provider] = PROVIDERS) -> Sequence[Entry]:
    """Every algorithm, by family, the provider in use before the others."""
    order = list(Family)
    return sorted(_entries(providers), key=lambda entry: order.index(entry.offer.family))


def _entries(providers: Sequence[Provider]) -> Iterator[Entry]:
    named: dict[tuple[Family, str], list[Entry]] = {}
    for provider in providers:
        for offer in provider.offers:
            rivals = named.setdefault((offer.family, offer.name), [])
            absence = provider.absence(offer.name)
            used = not absence and not any(rival.used for rival in rivals)
            rivals.append(Entry(offer, provider.name, absence, used))
    for rivals in named.values():
        yield from sorted(rivals, key=lambda entry: not entry.used)
    for provider_name, offers in _FIXED.items():
        yield from (Entry(offer, provider_name, "", True) for offer in offers)
