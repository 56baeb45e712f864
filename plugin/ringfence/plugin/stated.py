"""What whoever asks the policies a question may state of it, and what counts where nothing is stated. Pure.

Everything else that a policy may read is the gateway's own: the host's trust and attestation, groups, tenant and
attributes of the principal, approvals, its requests and jobs, whose the resource is, and the time. A question that
states one of those is denied, as is one that leaves out a text by which a `forbid` could have known it. A number or a
yes that is left out counts as the worst that it can be.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec

from ringfence.policies import PolicyError
from ringfence.policies.errors import BAD_QUERY

MOST: Final = 2**63 - 1
RISK_UNKNOWN: Final = 100
"""A risk that nobody states is the highest that there is: the shipped policies deny it."""

Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Number = Annotated[int, msgspec.Meta(ge=0, le=MOST)]


class Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of every action: where the request came from, and what has been proven of its session.

    `source` is required. Without the rest: no factor, no bound channel, the highest risk, and a session as old as the
    epoch.
    """

    source: Name
    factors: Annotated[tuple[Name, ...], msgspec.Meta(max_length=32)] = ()
    channel_bound: bool = False
    risk: Annotated[int, msgspec.Meta(ge=0, le=100)] = RISK_UNKNOWN
    session_age_s: Number = MOST


class StatedAccess(Stated, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of `Access`: the request. `method`, `authority` and `path` are required; without a `query` there is none.

    A body that is not spoken of is one that nobody has seen.
    """

    method: Name
    authority: Name
    path: Text
    query: Text = ""
    body_verified: bool = False
    body_bytes: Annotated[int, msgspec.Meta(ge=-1, le=MOST)] = -1


class StatedJob(Stated, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of `SubmitJob`: the job. `level`, `result` and `module_digest` are required; a limit without a number is none."""

    level: Name
    result: Name
    module_digest: Name
    body_verified: bool = False
    body_bytes: Number = MOST
    memory_bytes: Number = MOST
    gpu_memory_bytes: Number = MOST
    deadline_ms: Number = MOST
    output_bytes: Number = MOST
    qubits: Number = MOST
    compute_units: Number = MOST


Shape = TypeVar("Shape", bound=Stated)


def read(context: Any, shape: type[Shape]) -> Shape:
    """What a question's context states. Raises `policy.bad_query` for what it may not, and for what it lacks."""
    try:
        return msgspec.convert(context, shape)
    except msgspec.ValidationError as error:
        raise PolicyError(
            BAD_QUERY,
            f"The question's context cannot be taken: {error}.",
            field="context",
            hint="State what docs/hosts/authzen.md lists, and nothing that the gateway itself knows.",
        ) from None
