"""The gateway's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

import msgspec

from ringfence.attestation import ReferenceValues
from ringfence.config import KeyId, PcrIndex, Sha256, SocketPath
from ringfence.config.audit_section import EXAMPLE, AuditSettings
from ringfence.crypto.kems import AdditionalShareKemName
from ringfence.plugin.builtin.address import ListenAddress
from ringfence.plugin.config_tables import EXAMPLE as TABLES
from ringfence.plugin.config_tables import (
    EndorsementSettings,
    HostsSettings,
    PolicySettings,
    PolicySource,
    SessionsSettings,
    SocketsSettings,
    UpstreamName,
    UpstreamSettings,
)
from ringfence.plugin.device.settings import EXAMPLE as DEVICE
from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.identity.settings import IdentitySettings
from ringfence.plugin.risk.settings import EXAMPLE as RISK
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.signin.settings import SignInSettings
from ringfence.plugin.threats.settings import EXAMPLE as THREATS
from ringfence.plugin.threats.settings import ThreatSettings

if TYPE_CHECKING:
    from ringfence.plugin.policing import PolicyNews
    from ringfence.policies.holder import BundleHolder
    from ringfence.trust import KeyPair
    from ringfence.trust.watch import TrustFile

MIB = 1024 * 1024
NO_VERSIONS: Final[Mapping[str, int]] = MappingProxyType({})
TRUST_PATIENCE_S = 0.2
"""How long a look at the trust list holds: a key that is removed stops counting within this time."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a gateway's configuration names, loaded."""

    signer: KeyPair
    verifier: KeyPair
    trust: TrustFile
    decider: BundleHolder
    news: PolicyNews


class HostSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The host behind this gateway: its agent's socket and pinned key id, and what its TPM is expected to say.

    `attestation_keys` are the names of the host's attestation keys (AK), empty for a host without a TPM; `pcrs` the
    allowed SHA-256 values of each PCR.
    """

    socket: SocketPath
    agent: KeyId
    attestation_keys: tuple[Sha256, ...] = ()
    pcrs: dict[PcrIndex, Annotated[tuple[Sha256, ...], msgspec.Meta(min_length=1)]] = {}

    def references(self) -> ReferenceValues:
        """What the gateway's verifier expects."""
        pcrs = {int(index): frozenset(values) for index, values in self.pcrs.items()}
        return ReferenceValues({self.agent: frozenset(self.attestation_keys)}, pcrs)


class GatewayLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gateway itself bounds, whatever the policies say."""

    sessions: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    session_lifetime_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    attestation_lifetime_s: Annotated[int, msgspec.Meta(ge=10, le=3600)] = 300
    body_bytes: Annotated[int, msgspec.Meta(ge=1, le=1024 * MIB)] = 64 * MIB
    bodies_bytes: Annotated[int, msgspec.Meta(ge=1, le=1024 * 1024 * MIB)] = 512 * MIB
    body_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
    concurrent_requests: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    concurrent_openings: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 16
    connections: Annotated[int, msgspec.Meta(ge=8, le=100_000)] = 512
    header_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    refusals_per_minute: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 60
    job_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    remembered_nonces: Annotated[int, msgspec.Meta(ge=1000, le=10_000_000)] = 1_000_000
    nonces_of_principal: Annotated[int, msgspec.Meta(ge=100, le=10_000_000)] = 100_000
    risk_ceiling: Annotated[int, msgspec.Meta(ge=1, le=101)] = 90
    workers: Annotated[int, msgspec.Meta(ge=0, le=32)] = 0


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens, what it decides by, and the host it guards. Paths are relative to the file.

    `additional_shares` are taken into the keys of a client's session where the client offers one, in this order, and
    offered to the agent; without a common one either is refused only where `additional_share_required` says so.
    """

    component: ClassVar[str] = "gateway"
    example: ClassVar[str] = f"""\
# Relative paths are resolved against this file's folder.
component = "gateway"
listen = "unix:/run/ringfence/gateway.sock"   # or a loopback address such as "127.0.0.1:8440"
state = "/var/lib/ringfence"                  # the audit log is in state/audit/gateway
key = "/etc/ringfence/gateway.key"            # clients pin its public half
verifier_key = "/etc/ringfence/verifier.key"  # signs attestation results; clients pin its public half
trust = "/etc/ringfence/trust.toml"           # the pinned clients and agents
policies = "default"                          # a shipped bundle's name, or a folder such as "./policies"
additional_shares = []  # a third key exchange beside X25519 and ML-KEM-768, such as ["BIKE-L1"]
additional_share_required = false  # whether a peer that does not offer one is refused
# networks = "/etc/ringfence/networks.toml"   # gives addresses a region; docs/risk.md

[host]                                        # printed by `ringfence agent --config FILE --show-host` on the host
socket = "/run/ringfence/agent.sock"          # the agent's
agent = "rf1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"  # the agent's key id; its key is pinned in `trust`
attestation_keys = ["0000000000000000000000000000000000000000000000000000000000000000"]  # none: a host without a TPM

[host.pcrs]                                   # allowed SHA-256 values of PCR 0 to 7: the boot that was reviewed
0 = ["0000000000000000000000000000000000000000000000000000000000000000"]

{EXAMPLE}
[limits]                                      # what the gateway bounds, whatever the policies say
sessions = 10000                              # open at a time
session_lifetime_s = 900                      # never longer than the attestation result's life
attestation_lifetime_s = 300                  # of a result; it is renewed at half its life
body_bytes = 67108864                         # of one request
bodies_bytes = 536870912                      # of all requests under way
body_timeout_s = 30.0                         # within which a body must have arrived
concurrent_requests = 64                      # jobs under way
concurrent_openings = 16                      # sessions being opened
connections = 512                             # open at a time
header_timeout_s = 10.0                       # within which a connection must have sent a whole header
refusals_per_minute = 60                      # that strangers may write into the audit log, for each source
job_timeout_s = 60.0                          # how long the gateway waits for the agent's answer
remembered_nonces = 1000000                   # against replay; beyond them new requests are refused
nonces_of_principal = 100000                  # of those; beyond them the principal's requests are refused
risk_ceiling = 90                             # a risk score from 0 to 100 that is this high is refused; 101: none is
workers = 0                                   # processes that speak HTTP; 0: the deciding process does

{TABLES}
{RISK}
{THREATS}
{DEVICE}"""

    listen: ListenAddress
    state: Path
    key: Path
    verifier_key: Path
    trust: Path
    host: HostSettings
    policies: PolicySource = PolicySource("default")
    additional_shares: tuple[AdditionalShareKemName, ...] = ()
    additional_share_required: bool = False
    audit: AuditSettings = AuditSettings()
    limits: GatewayLimits = GatewayLimits()
    policy: PolicySettings = PolicySettings()
    sessions: SessionsSettings = SessionsSettings()
    sockets: SocketsSettings = SocketsSettings()
    upstreams: dict[UpstreamName, UpstreamSettings] = {}
    hosts: HostsSettings = HostsSettings()
    identity: IdentitySettings = IdentitySettings()
    endorsements: EndorsementSettings | None = None
    sign_in: SignInSettings | None = None
    networks: Path | None = None
    risk: RiskSettings = RiskSettings()
    threats: ThreatSettings = ThreatSettings()
    device: DeviceSettings = DeviceSettings()

    def open(self, least_versions: Mapping[str, int] = NO_VERSIONS) -> Opened:
        """Loads the keys, the trust list and the policies. Raises `TrustError`, `KeyStoreError` or `PolicyError`.

        `least_versions` are the highest versions of policy bundles that were in force before, by name: none below is
        taken in. The log's second key is looked at and forgotten: only the process that signs with it holds it.
        """
        from ringfence.attestation.anchoring import configured_anchor
        from ringfence.keystore.signing import load_second_key
        from ringfence.plugin.policing import PolicyNews, hold_policies
        from ringfence.trust import load_private
        from ringfence.trust.watch import TrustFile

        load_second_key(self.audit)
        # The file alone; no TPM is asked.
        configured_anchor(self.audit.anchor.path, "")
        signer, verifier = load_private(self.key), load_private(self.verifier_key)
        news = PolicyNews()
        least = least_versions.get(self.policies, 0)
        trust = TrustFile(self.trust, patience_s=TRUST_PATIENCE_S)
        decider = hold_policies(self.policies, self.policy, news, trust, least_version=least)
        return Opened(signer, verifier, trust, decider, news)
