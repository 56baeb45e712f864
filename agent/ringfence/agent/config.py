"""The agent's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import msgspec

from ringfence.agent.api.jobs import JobLimits
from ringfence.agent.confine.protections import Acceptable
from ringfence.agent.sandbox.monitor import Thresholds
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
    compute_units: Annotated[int, msgspec.Meta(ge=1, le=64)] = 64

    def ceiling(self) -> JobLimits:
        """The most that one job may ask for."""
        return JobLimits(
            memory_bytes=self.memory_bytes,
            gpu_memory_bytes=self.gpu_memory_bytes,
            deadline_ms=self.deadline_ms,
            output_bytes=self.output_bytes,
            qubits=self.qubits,
            compute_units=self.compute_units,
        )


class SandboxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which protections this host may lack, how much compiled code it keeps on its disk, and what is watched."""

    accept_missing: tuple[Acceptable, ...] = ()
    module_cache_bytes: Annotated[int, msgspec.Meta(ge=0, le=1024 * 1024 * MIB)] = 256 * MIB
    monitor: Thresholds = Thresholds()


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
compute_units = 64                     # of one job: its share of thread time while jobs contend, of 64

[sandbox]
accept_missing = []                    # what this host may lack at levels high and quantum: "landlock", "namespaces"
module_cache_bytes = 268435456         # compiled modules kept in state/modules; 0: none

[sandbox.monitor]                      # beyond these a job's monitor raises an event; 0: not watched
processor_percent = 150                # of one processor
memory_percent = 100                   # of the job's memory and twice its output
commands_per_second = 0                # that a guest gives its devices
checkpoint_gap_ms = 0                  # between two calls of security_checkpoint
kill = []                              # events that kill: "processor", "memory", "commands", "checkpoints"
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
    sandbox: SandboxSettings = SandboxSettings()

    def open(self) -> Opened:
        """Loads the keys and the trust list. Raises `TrustError`, and `KeyStoreError` for the log's second key.

        That key is looked at and forgotten: only the process that signs with it holds it (`open_daemon_log`).
        """
        from ringfence.attestation.anchoring import configured_anchor
        from ringfence.keystore.signing import load_second_key
        from ringfence.trust import load_private
        from ringfence.trust.watch import TrustFile

        load_second_key(self.audit)
        # The file alone; no TPM is asked.
        configured_anchor(self.audit.anchor.path, "")
        return Opened(load_private(self.key), TrustFile(self.trust))
