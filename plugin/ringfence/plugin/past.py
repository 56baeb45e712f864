"""What a gateway's own log says of the time before this process: spent nonces, ended sessions, the newest snapshot.

The log is read back before the gateway serves, and nothing is believed that is not in it: a message that was accepted
before a restart is refused after it, and no session lives on that the log says has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ringfence.audit.folder import is_log
from ringfence.audit.kinds import Record
from ringfence.audit.reading import Reader
from ringfence.plugin.replay import Spent, spent_nonces
from ringfence.plugin.sessions.revocations import History


@dataclass(frozen=True, slots=True)
class Past:
    """`spent` are the nonces that could still be presented, `history` what became of the sessions."""

    spent: tuple[Spent, ...]
    history: History


def read_past(folder: Path, *, now: int) -> Past:
    """The past in the log of `folder`, which is empty where there is no log yet. Raises `AuditError`."""
    history = History()
    if not is_log(folder):
        return Past((), history)
    spent = [one for one in spent_nonces(_seen(folder, history)) if one.until >= now]
    return Past(tuple(spent), history)


def _seen(folder: Path, history: History) -> Iterator[Record]:
    for entry in Reader(folder).more():
        history.see(entry.record)
        yield entry.record
