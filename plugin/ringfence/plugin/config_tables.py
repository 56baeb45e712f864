"""The tables of the gateway's configuration that say what stands in front of it and behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

import msgspec

from ringfence.config import SocketPath, resolved
from ringfence.plugin.hosts.authzen.api import AuthZenSettings
from ringfence.plugin.hosts.extauthz.settings import ExtAuthzSettings
from ringfence.plugin.hosts.forwardauth.service import ForwardAuthSettings
from ringfence.plugin.hosts.spoe.agent import SpoeSettings
from ringfence.policies.compiled.guarded import GuardSettings
from ringfence.policies.loading.checked import LoadingSettings

UpstreamName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]

EXAMPLE: Final = """\
# [upstreams.service]                         # what other gateways ask about, by the name that they give
# tenant = ""                                 # whose it is; policies compare it with the principal's
# verifies_body = false                       # whether it checks a body against the assertion before it acts

# [hosts.forward_auth.socket]                 # nginx, Caddy and Envoy HTTP ask here; docs/hosts has their sides
# path = "/run/ringfence/forward-auth.sock"   # where they find it
# peers = ["www-data"]                        # the users that they run as; nobody else is answered

[policy]
reload_s = 5                                  # how often a folder of policies is looked at; 0: at the start only
signed = false                                # whether a pinned policy signer must have signed the bundle
# shadow = "./proposed"                       # a bundle that is tried out: recorded, never enforced

[sessions]
idle_s = 600                                  # a session without a request for so long ends
snapshot_s = 300                              # how often sessions are kept for a restart, sealed; 0: never

[sockets]                                     # for the operator's commands; root and this user alone
admin = "/run/ringfence/gateway-admin.sock"   # `ringfence gateway sessions` and `revoke`
feed = "/run/ringfence/gateway-feed.sock"     # `ringfence gateway watch`
"""


class PolicySource(str):
    """Which policy bundle: a shipped one by its name, or, where there is a slash in it, a folder, resolved."""

    __slots__ = ()

    @classmethod
    def from_text(cls, text: str, folder: Path) -> Self:
        """The bundle that `text` names in a file in `folder`. Raises `ValueError` where it can be none."""
        return cls(resolved(text, folder) if "/" in text else text)


class UpstreamSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One upstream behind the gateways that ask: whose it is, and whether it checks bodies itself."""

    tenant: Annotated[str, msgspec.Meta(max_length=128)] = ""
    verifies_body: bool = False


class HostsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gateways that ask this one, each served only where it has a table; AuthZEN on forward-auth's socket."""

    forward_auth: ForwardAuthSettings | None = None
    spoe: SpoeSettings | None = None
    ext_authz: ExtAuthzSettings | None = None
    authzen: AuthZenSettings | None = None

    def __post_init__(self) -> None:
        if self.authzen is not None and self.forward_auth is None:
            raise ValueError("authzen is served on the socket of forward_auth, which has no table")


class SessionsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long sessions may be idle, and how often they are kept for a restart (0: never)."""

    idle_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 600
    snapshot_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 300


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How policies are taken in. `reload_s`: how often a folder is looked at (0: only at the start). `signed`: only a
    bundle is loaded that a pinned policy signer has signed. `accept_version`: the version that an operator goes back to
    by its number (0: none). `shadow`: a bundle that is tried out, decided by and recorded, and never enforced.
    """

    reload_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 5
    signed: bool = False
    accept_version: Annotated[int, msgspec.Meta(ge=0)] = 0
    shadow: PolicySource | None = None
    guard: GuardSettings = GuardSettings()
    loading: LoadingSettings = LoadingSettings()


class EndorsementSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Statements that vouch for modules: the folder that they are in, and the group that their signers are in."""

    folder: Path
    group: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = "module-signers"


class SocketsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sockets of the operator's commands; without one its commands do not work."""

    admin: SocketPath | None = None
    feed: SocketPath | None = None
