"""The agent's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from ringfence.crypto.kems import AdditionalShareKemName

MIB = 1024 * 1024


class AttestationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tcti`: the TPM's address (`device:/dev/tpmrm0`, `swtpm:path=...`), `auto` to look for one, `none` without."""

    tcti: str = "auto"
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
    example: ClassVar[str] = """\
component = "agent"
socket = "/run/ringfence/agent.sock"   # only its owner may connect
state = "/var/lib/ringfence"           # the audit log is in state/audit/agent
key = "/etc/ringfence/agent.key"       # made by `ringfence trust generate agent`
trust = "/etc/ringfence/trust.toml"    # the pinned gateways and clients

[attestation]
tcti = "auto"                          # or "device:/dev/tpmrm0", or "none"
deadline_s = 5.0

[limits]
jobs = 4                               # at a time
body_bytes = 67108864
memory_bytes = 1073741824
gpu_memory_bytes = 1073741824
deadline_ms = 30000
output_bytes = 67108864
qubits = 24                            # 0 on a host without the quantum extra
"""

    socket: Path
    state: Path
    key: Path
    trust: Path
    additional_shares: tuple[AdditionalShareKemName, ...] = ()
    additional_share_required: bool = False
    attestation: AttestationSettings = AttestationSettings()
    limits: AgentLimits = AgentLimits()
