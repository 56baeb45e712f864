"""SPIFFE ids. Source: The SPIFFE Identity and Verifiable Identity Document, sections 2.1 to 2.3. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ringfence.plugin.identity.errors import SPIFFE_ID_INVALID, IdentityError

MAX_ID: Final = 2048
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`spiffe://trust_domain` and `path`, which is empty for the id of a trust domain itself."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"


def parse(text: str) -> SpiffeId:
    """The SPIFFE id that `text` spells, in the one spelling that there is. Raises `identity.spiffe_id_invalid`.

    Port, user, query, fragment, percent-encoding, upper case in the trust domain, empty, "." and ".." segments are
    refused, so that two different texts never name one workload.
    """
    if len(text) > MAX_ID or not text.startswith("spiffe://"):
        raise _invalid(f"it does not begin with spiffe://, or has more than {MAX_ID} characters")
    domain, slash, path = text.removeprefix("spiffe://").partition("/")
    if not _TRUST_DOMAIN.fullmatch(domain):
        raise _invalid("its trust domain has other characters than a-z, 0-9, dot, dash and underscore")
    segments = path.split("/") if slash else []
    if not all(_SEGMENT.fullmatch(segment) and segment not in {".", ".."} for segment in segments):
        raise _invalid("a segment of its path is empty, relative, or has other characters than it may")
    return SpiffeId(domain, slash + path)


def is_trust_domain(text: str) -> bool:
    """Whether `text` can be the name of a trust domain."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


def _invalid(why: str) -> IdentityError:
    return IdentityError(SPIFFE_ID_INVALID, f"The certificate's SPIFFE id is refused: {why}.", field="certificate")
