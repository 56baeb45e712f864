"""How many recorded decisions a second are taken again by a proposed bundle, from the log's lines to the counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ringfence.policies import Decider, Query
    from ringfence.policies.bundle import Bundle

DECISIONS: Final = 100_000


def measure(decider: Callable[[Bundle], Decider], *, decisions: int = DECISIONS) -> dict[str, Any]:
    """Replays a log of `decisions` by an edited default bundle, once, with what `decider` makes of that bundle.

    The log's lines are in memory, as whole records of the audit log. `agrees` says whether the counts are those of
    asking both bundles for each decision.
    """
    from ringfence.policies.folder import open_bundled
    from ringfence.policies.replay import replay

    default = open_bundled("default")
    proposed = decider(
        changed(
            default,
            policies=tuple(changed(one, text=one.text.replace("risk >= 70", "risk >= 40")) for one in default.policies),
        )
    )
    before = decider(default)
    queries = [_query(number) for number in range(decisions)]
    answers = [before.decide(query).allowed for query in queries]
    lines = [_line(number, query, answers[number]) for number, query in enumerate(queries)]
    expected = sum(proposed.decide(query).allowed is not answers[number] for number, query in enumerate(queries))
    began = time.perf_counter()
    report = replay(lines, proposed)
    seconds = time.perf_counter() - began
    return {
        "per_second": round(decisions / seconds),
        "decisions": decisions,
        "line_bytes": len(lines[0]),
        "changed": report.changed.total(),
        "agrees": report.changed.total() == expected and report.replayed == decisions,
    }


def _query(number: int) -> Query:
    """The benchmark's traffic: many callers, all actions, risk and time that move."""
    from msgspec.structs import replace

    from ringfence.policies import Action, Query
    from ringfence.policies.cases import BASES

    action = tuple(Action)[number % 3]
    context = replace(BASES[action], risk=number % 97, now_s=1_800_000_000 + number, requests_minute=number % 300)
    groups = ("clients", "job-submitters", "service-users")[: 1 + number % 3]
    return Query(f"rf1caller{number % 1_000}", groups, action, "gpu-1", context)


def _line(number: int, query: Query, allowed: bool) -> bytes:
    from msgspec.structs import asdict

    from ringfence.audit.kinds import Asked, Decision, Stage
    from ringfence.audit.records import GENESIS, encode_data, encode_line

    stages = tuple(Stage(name, "allow", "", 5) for name in ("session", "integrity", "device_trust", "risk"))
    record = Decision(
        decision_id=f"d{number}",
        pipeline="request",
        verdict="allow" if allowed else "deny",
        session="0" * 32,
        principal=query.principal,
        action=query.action.value,
        resource=query.resource,
        stages=(*stages, Stage("policy", "allow" if allowed else "deny", "", 9)),
        asked=Asked(query.groups, asdict(query.context)),
        bundle_digest="0" * 64,
    )
    moment_ns = 1_800_000_000_000_000_000 + number
    return encode_line(number + 1, number, GENESIS, moment_ns, b"decision/2", encode_data(record))
