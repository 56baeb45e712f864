"""Reference values: what a verifier expects of the hosts that it knows, pinned explicitly by an operator."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ringfence.attestation.errors import REFERENCES_INVALID, AttestationError

_KEY_ID = re.compile(r"rf1[A-Za-z0-9_-]{43}")
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_LAST_PCR = 23


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """The hosts a verifier knows and the boot it expects of them.

    `agents` maps the key id of each pinned agent to the names of the AKs that may quote for it (`ak_name`); an empty
    set pins a host without a TPM. The pairing matters: one host's TPM must not vouch for another host's agent.
    `pcrs` maps a PCR of the SHA-256 bank to its allowed values in hex; a PCR that is not named is not compared.
    Raises `attestation.references_invalid` for anything that could never match.
    """

    agents: Mapping[str, frozenset[str]]
    pcrs: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for agent, names in self.agents.items():
            if not _KEY_ID.fullmatch(agent):
                raise _invalid("agents", f"{agent!r} is not a key id (rf1 and 43 characters).")
            for name in names:
                _check_hex("agents", name)
        for index, values in self.pcrs.items():
            if not 0 <= index <= _LAST_PCR:
                raise _invalid("pcrs", f"There is no PCR {index}; they run from 0 to {_LAST_PCR}.")
            if not values:
                raise _invalid("pcrs", f"PCR {index} allows no value, so that no host could ever pass.")
            for value in values:
                _check_hex("pcrs", value)
        object.__setattr__(self, "agents", MappingProxyType(dict(self.agents)))
        object.__setattr__(self, "pcrs", MappingProxyType(dict(self.pcrs)))


def ak_name(ak_public: bytes) -> str:
    """The name under which an AK is pinned: SHA-256 of its TPMT_PUBLIC in hex (Part 1, section 16, without nameAlg)."""
    return hashlib.sha256(ak_public).hexdigest()


def _check_hex(where: str, value: str) -> None:
    if not _SHA256_HEX.fullmatch(value):
        raise _invalid(where, f"{value!r} is not a SHA-256 in 64 lower-case hex digits.")


def _invalid(where: str, message: str) -> AttestationError:
    return AttestationError(
        REFERENCES_INVALID, message, field=where, hint="Correct the pinned reference values of this verifier."
    )
