"""How this host attests itself, and what a gateway's operator has to write down of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence import attestation
from ringfence.agent.config import AgentConfig, AttestationSettings
from ringfence.attestation.evidence import TpmEvidence
from ringfence.trust import load_private
from ringfence.trust.store import quoted

_NONCE: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class HostReference:
    """The host as a gateway's `[host]` names it: `pcrs` are (index, hex) pairs of the SHA-256 bank, in order.

    `unattested` says why there is neither an attestation key nor a PCR, and is empty for a host with a TPM.
    """

    socket: Path
    agent: str
    attestation_keys: tuple[str, ...] = ()
    pcrs: tuple[tuple[int, str], ...] = ()
    unattested: str = ""

    def toml(self) -> str:
        """The table for the end of a gateway's configuration."""
        lines = ["[host]", f"socket = {quoted(str(self.socket))}", f"agent = {quoted(self.agent)}"]
        lines += [f"attestation_keys = [{quoted(key)}]" for key in self.attestation_keys]
        if self.pcrs:
            lines += ["", "[host.pcrs]", *(f"{index} = [{quoted(value)}]" for index, value in self.pcrs)]
        return "\n".join([*lines, ""])


def attester(settings: AttestationSettings) -> attestation.Attester:
    """The attester that the configuration asks for."""
    if settings.tcti == "none":
        return attestation.NoTpmAttester("its configuration says that it has no TPM")
    tcti: str | None = str(settings.tcti)
    if tcti == "auto":
        tcti = attestation.discover_tcti(os.environ, os.path.exists)
    if tcti is None:
        return attestation.NoTpmAttester("it has no TPM")
    return attestation.TpmAttester(tcti, settings.deadline_s)


async def observe(config: AgentConfig) -> HostReference:
    """What the host's key and its TPM show now. Raises `TrustError`, or `AttestationError` where a verifier would."""
    signer = load_private(config.key)
    seen = await attester(config.attestation).collect(_NONCE, signer.public)
    if not isinstance(seen, TpmEvidence):
        return HostReference(config.socket, signer.key_id, unattested=seen.reason)
    key, pcrs = attestation.ak_name(seen.ak_public), tuple((pcr.index, pcr.value.hex()) for pcr in seen.pcrs)
    # What a verifier would refuse with these very references must not be handed out to be pinned.
    references = attestation.ReferenceValues(
        {signer.key_id: frozenset({key})}, {index: frozenset({value}) for index, value in pcrs}
    )
    attestation.appraise(seen, nonce=_NONCE, agent_key=signer.public, references=references, now=int(time.time()))
    return HostReference(config.socket, signer.key_id, (key,), pcrs)
