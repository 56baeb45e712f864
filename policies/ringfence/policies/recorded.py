"""Recorded decisions as queries again: what the policies were asked, read from the audit log's lines, and fast.

A line is decoded straight into the types of its action, and only what a replay needs of it. That the log is what its
owner wrote is for `ringfence.audit` to check; here a line that is no decision is passed over, and one that cannot be
asked again is said to be so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import msgspec

from ringfence.policies.decision import AccessContext, Action, JobContext, Query, SessionContext

_TAG: Final = b'"kind":"decision/'
_TAG_WITHIN: Final = 256  # an envelope's fields before the data are numbers and a hash
_POLICY_STAGE: Final = "policy"


class Passed(enum.Enum):
    """Why a decision is not replayed."""

    BEFORE_POLICY = "decided before the policies were asked"
    OLDER = "recorded before decisions held what was asked"
    UNREADABLE = "asks what this version cannot"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision that can be taken again: the question, and whether the policies allowed it then."""

    query: Query
    allowed: bool


# The types of the fields are checked by the decoder. The ranges were checked when the question was first asked, and
# checking them in Python again takes longer than all else here; policies are defined outside them too.
class _Session(SessionContext, frozen=True, gc=False, forbid_unknown_fields=True):
    def __post_init__(self) -> None: ...


class _Job(JobContext, frozen=True, gc=False, forbid_unknown_fields=True):
    def __post_init__(self) -> None: ...


class _Access(AccessContext, frozen=True, gc=False, forbid_unknown_fields=True):
    def __post_init__(self) -> None: ...


class _Query(Query, frozen=True, gc=False):
    def __post_init__(self) -> None: ...


class _AskedSession(msgspec.Struct, gc=False):
    groups: tuple[str, ...]
    context: _Session


class _AskedJob(msgspec.Struct, gc=False):
    groups: tuple[str, ...]
    context: _Job


class _AskedAccess(msgspec.Struct, gc=False):
    groups: tuple[str, ...]
    context: _Access


class _Data(msgspec.Struct, gc=False):
    verdict: str
    principal: str
    resource: str
    stages: tuple[tuple[str, str, str, int], ...]


class _SessionData(_Data, gc=False):
    asked: _AskedSession | None


class _JobData(_Data, gc=False):
    asked: _AskedJob | None


class _AccessData(_Data, gc=False):
    asked: _AskedAccess | None


class _SessionLine(msgspec.Struct, gc=False):
    data: _SessionData


class _JobLine(msgspec.Struct, gc=False):
    data: _JobData


class _AccessLine(msgspec.Struct, gc=False):
    data: _AccessData


_Decoder = msgspec.json.Decoder[_SessionLine] | msgspec.json.Decoder[_JobLine] | msgspec.json.Decoder[_AccessLine]

_DECODERS: Final[dict[bytes, tuple[Action, _Decoder]]] = {
    b"OpenSession": (Action.OPEN_SESSION, msgspec.json.Decoder(_SessionLine)),
    b"SubmitJob": (Action.SUBMIT_JOB, msgspec.json.Decoder(_JobLine)),
    b"Access": (Action.ACCESS, msgspec.json.Decoder(_AccessLine)),
}


def recorded(line: bytes) -> Recorded | Passed | None:
    """The decision on one line (without its newline), why it is not replayed, or None for a line of another kind."""
    tag = line.find(_TAG, 0, _TAG_WITHIN)
    if tag < 0:
        return None
    if line[tag + 17 : tag + 19] != b'2"':
        return Passed.OLDER
    # The encoding is canonical, so a quote inside a name is escaped, and this is the record's own field.
    start = line.find(b',"action":"', tag) + 11
    action, decoder = _DECODERS.get(line[start : line.find(b'"', start)], (None, None))
    if action is None or decoder is None:
        return Passed.BEFORE_POLICY if b'"asked":null' in line else Passed.UNREADABLE
    try:
        data = decoder.decode(line).data
        asked = data.asked
        if asked is None:
            return Passed.BEFORE_POLICY
        query = _Query(data.principal, asked.groups, action, data.resource, asked.context)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Passed.UNREADABLE
    return Recorded(query, data.verdict == "allow" or _policies_allowed(data.stages))


def _policies_allowed(stages: tuple[tuple[str, str, str, int], ...]) -> bool:
    """Whether the policies allowed what a later stage refused."""
    return any(stage[0] == _POLICY_STAGE and stage[1] == "allow" for stage in stages)
