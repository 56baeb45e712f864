"""The one list of providers, in the order in which they are asked, and the search through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ringfence.crypto.errors import ALGORITHM_UNKNOWN, PROVIDER_ABSENT, CryptoError
from ringfence.crypto.offers import Family
from ringfence.crypto.ports import Provider
from ringfence.crypto.providers.liboqs import Liboqs
from ringfence.crypto.providers.own import Own
from ringfence.crypto.providers.pqcrypto import Pqcrypto
from ringfence.crypto.providers.pyca import Pyca

PROVIDERS: Final[Sequence[Provider]] = (Pyca(), Pqcrypto(), Liboqs(), Own())


def provider_of(name: str, family: Family, providers: Sequence[Provider] = PROVIDERS) -> Provider:
    """The first provider that offers `name` and can be used here.

    Raises `crypto.algorithm_unknown` where nobody offers it, `crypto.provider_absent` where nobody who does is here.
    """
    reasons = []
    for provider in providers:
        if any(offer.name == name and offer.family is family for offer in provider.offers):
            absence = provider.absence(name)
            if not absence:
                return provider
            reasons.append(f"{provider.name}: {absence}")
    if reasons:
        raise CryptoError(
            PROVIDER_ABSENT,
            f"Nothing here provides {name} ({'; '.join(reasons)}).",
            hint="`ringfence crypto list` shows what each provider needs.",
        )
    known = sorted({offer.name for provider in providers for offer in provider.offers if offer.family is family})
    raise CryptoError(
        ALGORITHM_UNKNOWN, f"There is no {family.value} algorithm {name!r}.", hint=f"Known: {', '.join(known)}."
    )
