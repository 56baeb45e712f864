"""Show a recorded decision as a person needs it: each stage, the risk, what policies were asked, what would help."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ringfence.audit.kinds import Decision
    from ringfence.audit.records import Entry

MIN_PREFIX: Final = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence gateway explain`."""
    parser.description = (
        "Looks a decision up in an audit log, newest first, and says what each stage found. The id is in the answer to "
        "the caller (`decision_id`, and the field X-Ringfence-Decision) and in `ringfence audit show`. Nothing is "
        "checked here: `ringfence audit verify` does that."
    )
    parser.add_argument("decision", metavar="DECISION_ID", help="the decision's id, or its first eight characters")
    parser.add_argument("--log", type=Path, required=True, metavar="DIR", help="the gateway's audit log, or its parent")


def run(arguments: argparse.Namespace) -> int:
    """Prints the explanation. Raises `gateway.no_decision` where the log has no such decision."""
    import msgspec

    from ringfence.audit.selection import iso_time
    from ringfence.plugin.explaining import explain
    from ringfence.terminal import print_json, printable

    entry, record = _find(arguments.log, arguments.decision)
    if arguments.json:
        print_json({"seq": entry.seq, "time": iso_time(entry.time_ns), "decision": msgspec.to_builtins(record)})
        return 0
    for line in explain(record, entry.time_ns, shown=printable):
        print(line)
    return 0


def _find(folder: Path, wanted: str) -> tuple[Entry, Decision]:
    from ringfence.audit.kinds import Decision
    from ringfence.audit.reading import Reader, logs_in
    from ringfence.plugin.errors import DECISION_UNKNOWN, GateError

    found: tuple[Entry, Decision] | None = None
    if len(wanted) >= MIN_PREFIX:
        for log in logs_in(folder):
            for entry in Reader(log).more():
                record = entry.record
                if isinstance(record, Decision) and record.decision_id.startswith(wanted):
                    found = entry, record
    if found is None:
        raise GateError(
            DECISION_UNKNOWN,
            "The log has no decision with that id.",
            field="DECISION_ID",
            hint="Give the whole id, or its first eight characters; `ringfence audit show --kind decision` lists them.",
        )
    return found
