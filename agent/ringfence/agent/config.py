"""The agent's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import msgspec

from ringfence.attestation import AttestationError, parse_address
from ringfence.config import SocketPath
from ringfence.config.audit_section import EXAMPLE, AuditSettings
from ringfence.crypto.kems import AdditionalShareKemName

if TYPE_CHECKING:
    from ringfence.trust import KeyPair
    from ringfence.trust.watch import TrustFile

MIB = 1024 * 1024


class Tcti(str):
    """A TPM's address (`device:/dev/tpmrm0`, `swtpm:path=/...`), `auto` to look for one, `none` without."""

    __slots__ = ()

    @classmethod
    def from_text(cls, text: str, folder: Path) -> Self:  # noqa: ARG003 - an address is absolute
        """The address in `text`. Raises `ValueError` for what names no TPM."""
        try:
            if text not in ("auto", "none"):
                parse_address(text)
        except AttestationError:
            raise ValueError(
                "Expected auto, none, device:/dev/tpmrm0 or another device, or swtpm:path=/absolute/path"
            ) from None
        return cls(text)


@dataclass(frozen=True, slots=True)
class Opened:
    """What an agent's configuration names, loaded."""

    signer: KeyPair
    trust: TrustFile


class AttestationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which TPM attests this host, and how many seconds it may take."""

    tcti: Tcti = Tcti("auto")
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0


class AgentLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this host gives at most, whatever a grant says."""

    jobs: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 4
    body_bytes: Annotated[int, msgspec.Meta(ge=1, le=1024 * MIB)] = 64 * MIB
    memory_bytes: Annotated[int, msgspec.Meta(ge=1)] = 1024 * MIB
    gpu_memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 1024 * MIB
    deadline_ms: Annotated[int, msgspec.Meta(ge=1)] = 30_000
    output_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 * MIB
    qubits: Annotated[int, msgspec.Meta(ge=0, le=24)] = 24


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the agent listens, keeps its state, and whom it knows. Paths are relative to the file.

    `additional_shares` are taken into the keys of a gateway's channel where the gateway offers one, in this order;
    without a common one the channel is refused only where `additional_share_required` says so.
    """

    component: ClassVar[str] = "agent"
    example: ClassVar[str] = f"""\
# Relative paths are resolved against this file's folder.
component = "agent"
socket = "/run/ringfence/agent.sock"   # only its owner may connect; 107 bytes at most
state = "/var/lib/ringfence"           # the audit log is in state/audit/agent
key = "/etc/ringfence/agent.key"       # made by `ringfence trust generate agent`
trust = "/etc/ringfence/trust.toml"    # the pinned gateways and clients
additional_shares = []  # a third key exchange beside X25519 and ML-KEM-768, such as ["BIKE-L1"]
additional_share_required = false  # whether a peer that does not offer one is refused

[attestation]
tcti = "auto"                          # or "device:/dev/tpmrm0", or "none" on a host without a TPM
deadline_s = 5.0                       # how long a quote of the TPM may take

{EXAMPLE}
[limits]                               # what this host gives at most, whatever a grant says
jobs = 4                               # at a time
body_bytes = 67108864                  # of one submission: module, input and statement
memory_bytes = 1073741824              # of one guest
gpu_memory_bytes = 1073741824          # of one job
deadline_ms = 30000                    # of one job; then its processes are killed
output_bytes = 67108864                # of one job
qubits = 24                            # of one job; 0 on a host without the quantum extra
"""

    socket: SocketPath
    state: Path
    key: Path
    trust: Path
    additional_shares: tuple[AdditionalShareKemName, ...] = ()
    additional_share_required: bool = False
    attestation: AttestationSettings = AttestationSettings()
    audit: AuditSettings = AuditSettings()
    limits: AgentLimits = AgentLimits()

    def open(self) -> Opened:
        """Loads the keys and the trust list. Raises `TrustError`, and `KeyStoreError` for the log's second key.

        That key is looked at and forgotten: only the process that signs with it holds it (`open_daemon_log`).
        """
        from ringfence.keystore.signing import load_second_key
        from ringfence.trust import load_private
        from ringfence.trust.watch import TrustFile

        load_second_key(self.audit)
        return Opened(load_private(self.key), TrustFile(self.trust))
