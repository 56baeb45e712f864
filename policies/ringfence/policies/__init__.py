"""The policy decision point: may this principal do this on this host, now.

This package's root offers only the values and the port, which need no policy engine. Whoever decides imports
`ringfence.policies.folder` (loads a bundle) and `ringfence.policies.engine` (decides with Cedar; extra `gateway`).
"""

from __future__ import annotations

from ringfence.policies.decision import (
    AccessContext,
    Action,
    CommonContext,
    Context,
    Decider,
    DeviceStatus,
    JobContext,
    Query,
    SessionContext,
    Verdict,
)
from ringfence.policies.errors import PolicyError

__all__ = [
    "AccessContext",
    "Action",
    "CommonContext",
    "Context",
    "Decider",
    "DeviceStatus",
    "JobContext",
    "PolicyError",
    "Query",
    "SessionContext",
    "Verdict",
]
