"""The gateway's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

MIB = 1024 * 1024
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class HostSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The host behind this gateway: its agent's socket and pinned key id, and what its TPM is expected to say.

    `attestation_keys` are the names of the host's attestation keys (AK), empty for a host without a TPM; `pcrs` the
    allowed SHA-256 values of each PCR.
    """

    socket: Path
    agent: Annotated[str, msgspec.Meta(pattern=r"^rf1[A-Za-z0-9_-]{43}\Z")]
    attestation_keys: tuple[Digest, ...] = ()
    pcrs: dict[str, tuple[Digest, ...]] = {}


class GatewayLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gateway itself bounds, whatever the policies say."""

    sessions: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    session_lifetime_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    attestation_lifetime_s: Annotated[int, msgspec.Meta(ge=10, le=3600)] = 300
    body_bytes: Annotated[int, msgspec.Meta(ge=1, le=1024 * MIB)] = 64 * MIB
    body_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
    concurrent_requests: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    job_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    remembered_nonces: Annotated[int, msgspec.Meta(ge=1000)] = 1_000_000
    risk_ceiling: Annotated[int, msgspec.Meta(ge=1, le=101)] = 90


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens, what it decides by, and the host it guards. Paths are relative to the file."""

    component: ClassVar[str] = "gateway"
    example: ClassVar[str] = """\
component = "gateway"
listen = "unix:/run/ringfence/gateway.sock"   # or a loopback address such as "127.0.0.1:8440"
state = "/var/lib/ringfence"                  # the audit log is in state/audit/gateway
key = "/etc/ringfence/gateway.key"            # clients pin its public half
verifier_key = "/etc/ringfence/verifier.key"  # signs attestation results
trust = "/etc/ringfence/trust.toml"           # the pinned clients and agents
policies = "default"                          # a shipped bundle's name, or a folder

[host]
socket = "/run/ringfence/agent.sock"
agent = "rf1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
attestation_keys = ["0000000000000000000000000000000000000000000000000000000000000000"]

[host.pcrs]
0 = ["0000000000000000000000000000000000000000000000000000000000000000"]

[limits]
sessions = 10000
session_lifetime_s = 900
attestation_lifetime_s = 300
body_bytes = 67108864
"""

    listen: str
    state: Path
    key: Path
    verifier_key: Path
    trust: Path
    host: HostSettings
    policies: str = "default"
    limits: GatewayLimits = GatewayLimits()
