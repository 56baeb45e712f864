"""What a gateway's own log says of the time before this process: spent nonces, ended sessions, the newest snapshot.

The log is read back before the gateway serves, and nothing is believed that is not in it: a message that was accepted
before a restart is refused after it, and no session lives on that the log says has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence.audit.folder import is_log
from ringfence.audit.kinds import Operator, Record
from ringfence.audit.reading import Reader
from ringfence.plugin.replay import Spent, spent_nonces
from ringfence.plugin.sessions.revocations import History
from ringfence.policies.holder import BundleHolder


@dataclass(frozen=True, slots=True)
class Past:
    """`spent` are the nonces that could still be presented, `history` what became of the sessions, and
    `policies` the highest version of each policy bundle that was in force, by its name."""

    spent: tuple[Spent, ...]
    history: History
    policies: Mapping[str, int]


def read_past(folder: Path, *, now: int) -> Past:
    """The past in the log of `folder`, which is empty where there is no log yet. Raises `AuditError`."""
    history = History()
    if not is_log(folder):
        return Past((), history, {})
    policies: dict[str, int] = {}
    spent = [one for one in spent_nonces(_seen(folder, history, policies)) if one.until >= now]
    return Past(tuple(spent), history, policies)


def policies_record(holder: BundleHolder, name: str) -> Operator:
    """Says which bundle is in force, under which name and version."""
    return Operator(
        event="policies", component="gateway", version=f"{holder.bundle.version} {name}", digest=holder.bundle_digest
    )


def _seen(folder: Path, history: History, policies: dict[str, int]) -> Iterator[Record]:
    for entry in Reader(folder).more():
        record = entry.record
        history.see(record)
        if isinstance(record, Operator) and record.event == "policies":
            version, _, name = record.version.partition(" ")
            if version.isdecimal():
                policies[name] = max(policies.get(name, 0), int(version))
        yield record
