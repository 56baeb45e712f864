"""Explain risk scores, and look through recorded decisions for what stands out."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.terminal import print_json, print_table, printable

if TYPE_CHECKING:
    from ringfence.audit.records import Entry
    from ringfence.plugin.risk.explain import Scored
    from ringfence.plugin.risk.history import Observation
    from ringfence.plugin.risk.state import State

MAX_OBSERVATIONS = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence risk`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    explain = actions.add_parser(
        "explain",
        help="show a score, its reasons, and what was usual",
        description="Show the score of a recorded decision and its reasons, and what is usual for its principal by the "
        "state that the gateway saved last.",
    )
    _log(explain)
    which = explain.add_mutually_exclusive_group(required=True)
    which.add_argument("--decision", metavar="ID", help="this decision")
    which.add_argument("--principal", metavar="PRINCIPAL", help="its last decision; a client's is its key id")
    explain.add_argument("--state", type=Path, metavar="DIR", help="the folder of the gateway's risk state")
    explain.add_argument("--key", type=Path, metavar="FILE", help="the gateway's public key, to check the state with")

    train = actions.add_parser(
        "train",
        help="grow an isolation forest from recorded decisions",
        description="Grow an isolation forest from the decisions that allowed, as the log has them: check the log with "
        "`ringfence audit verify` first. Needs the extra `risk`.",
    )
    _log(train)
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="the forest's file")
    train.add_argument("--key", type=Path, required=True, metavar="FILE", help="the private key that signs it")
    train.add_argument("--trees", type=int, default=100, metavar="N", help="default: 100")
    train.add_argument("--seed", type=int, metavar="N", help="for a forest that can be grown again (default: random)")

    score = actions.add_parser(
        "score",
        help="list the recorded decisions that stand out most",
        description="List the decisions that are most anomalous by a forest, with what makes them so.",
    )
    _log(score)
    score.add_argument("--model", type=Path, required=True, metavar="FILE", help="what `train` wrote")
    score.add_argument("--key", type=Path, required=True, metavar="FILE", help="the public key of who signed it")
    score.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: 20)")


def run(arguments: argparse.Namespace) -> int:
    """Runs one action. Raises `RiskError`, `AuditError`, `TrustError` or `UsageError`."""
    if arguments.action == "explain":
        return _explain(arguments)
    if arguments.action == "train":
        return _train(arguments)
    return _score(arguments)


def _log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log", type=Path, required=True, metavar="DIR", help="what `ringfence audit path` prints, or one log"
    )


def _entries(folder: Path) -> Iterator[Entry]:
    from ringfence.audit.reading import Reader, logs_in

    for log in logs_in(folder):
        yield from Reader(log).more()


def _observations(folder: Path) -> list[Observation]:
    from collections import deque

    from ringfence.plugin.risk.history import History

    history = History()
    found = (observed for entry in _entries(folder) if (observed := history.observe(entry)) is not None)
    return list(deque(found, maxlen=MAX_OBSERVATIONS))


def _explain(arguments: argparse.Namespace) -> int:
    from ringfence.plugin.risk.errors import NOTHING_RECORDED, RiskError
    from ringfence.plugin.risk.explain import find

    if (arguments.state is None) != (arguments.key is None):
        raise UsageError(
            BAD_ARGUMENT,
            "--state and --key belong together.",
            field="--state",
            hint="Name the gateway's public key, so that the state can be believed.",
        )
    scored = find(_entries(arguments.log), decision=arguments.decision or "", principal=arguments.principal or "")
    if scored is None:
        what = f"decision {arguments.decision}" if arguments.decision else f"decision on {arguments.principal}"
        raise RiskError(
            NOTHING_RECORDED,
            f"The log has no {what}.",
            field="--log",
            hint="`ringfence audit show --kind decision` lists what it has.",
        )
    document: dict[str, object] = msgspec.to_builtins(scored)
    document["baseline"] = _baseline(arguments, scored.principal) if arguments.state is not None else None
    if arguments.json:
        print_json(document)
    else:
        _show(scored, document["baseline"])
    return 0


def _baseline(arguments: argparse.Namespace, principal: str) -> dict[str, object] | None:
    from ringfence.plugin.risk import snapshot
    from ringfence.plugin.risk.explain import usual
    from ringfence.plugin.risk.keeping import state_file

    state = _state(state_file(arguments.state, snapshot.KIND), snapshot.KIND, arguments.key)
    assessor = snapshot.restored(state.payload)
    found = assessor.baseline(principal)
    if found is None:
        return None
    described = usual(found, cold_below=assessor.settings.cold_observations)
    return {"generation": state.generation, "saved_at": state.saved_at, **described}


def _show(scored: Scored, baseline: object) -> None:
    risk = "none" if scored.risk < 0 else str(scored.risk)
    lines = [
        f"decision {scored.decision_id} at {scored.time}: {scored.verdict} {scored.code}".rstrip(),
        f"  {scored.principal or 'nobody known'} from {scored.source or 'unknown'}, {scored.action or 'no action'}",
        f"  risk {risk}",
        *(f"  {reason.points:>4}  {reason.feature}: {reason.text}" for reason in scored.reasons),
    ]
    if isinstance(baseline, dict):
        lines.append("  what is usual for this principal:")
        lines += [f"    {name.replace('_', ' ')}: {_plain(value)}" for name, value in baseline.items()]
    sys.stdout.write("".join(printable(line) + "\n" for line in lines))


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name or 'nowhere known'} {share}" for name, share in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def _train(arguments: argparse.Namespace) -> int:
    from ringfence.plugin.risk.files import read_state, write_state
    from ringfence.plugin.risk.forest import KIND, MAX_TREES, encode_forest
    from ringfence.plugin.risk.state import State, open_state, seal_state
    from ringfence.plugin.risk.training import grow
    from ringfence.trust import load_private

    if not 1 <= arguments.trees <= MAX_TREES:
        raise UsageError(BAD_ARGUMENT, f"--trees must be 1 to {MAX_TREES}.", field="--trees", hint="Take 100.")
    signer = load_private(arguments.key)
    before = read_state(arguments.out)
    generation = 0 if before is None else open_state(before, KIND, keys={signer.key_id: signer.public}).generation
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed % (1 << 32)
    forest = grow(_observations(arguments.log), trees=arguments.trees, seed=seed)
    state = State(KIND, generation + 1, int(time.time()), encode_forest(forest))
    write_state(arguments.out, seal_state(state, signer))
    if arguments.json:
        print_json({"trained_on": forest.trained_on, "generation": state.generation, "output": str(arguments.out)})
    else:
        sys.stdout.write(
            printable(f"{arguments.out}: generation {state.generation}, from {forest.trained_on} allowed decisions")
            + "\n"
        )
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from ringfence.audit.selection import SECOND_NS, iso_time
    from ringfence.plugin.risk.forest import KIND, decode_forest

    if arguments.limit < 1:
        raise UsageError(BAD_ARGUMENT, "--limit must be 1 or more.", field="--limit", hint="Take 20.")
    forest = decode_forest(_state(arguments.model, KIND, arguments.key).payload)
    ranked = sorted(
        ((forest.anomaly(observed.row), observed) for observed in _observations(arguments.log)),
        key=lambda pair: -pair[0],
    )[: arguments.limit]
    found = [
        {
            "decision_id": observed.decision_id,
            "time": iso_time(observed.at * SECOND_NS),
            "principal": observed.principal,
            "verdict": "allow" if observed.allowed else "deny",
            "anomaly": round(anomaly, 3),
            "stands_out": anomaly > forest.threshold,
            "because": {name: round(less, 3) for name, less in forest.because(observed.row)[:3] if less > 0},
        }
        for anomaly, observed in ranked
    ]
    if arguments.json:
        print_json({"decisions": found, "threshold": round(forest.threshold, 3)})
        return 0
    rows = [("ANOMALY", "TIME", "PRINCIPAL", "VERDICT", "DECISION", "BECAUSE OF")]
    for one in found:
        because = one["because"]
        said = ", ".join(because) if isinstance(because, dict) else ""
        mark = "*" if one["stands_out"] else ""
        row = (f"{one['anomaly']}{mark}", one["time"], one["principal"], one["verdict"], one["decision_id"], said)
        rows.append((str(row[0]), str(row[1]), str(row[2]), str(row[3]), str(row[4]), row[5]))
    print_table(rows)
    return 0


def _state(path: Path, kind: str, key: Path) -> State:
    from ringfence.crypto import key_id
    from ringfence.plugin.risk.errors import STATE_UNREADABLE, RiskError
    from ringfence.plugin.risk.files import read_state
    from ringfence.plugin.risk.state import open_state
    from ringfence.trust import load_public

    public = load_public(key)
    data = read_state(path)
    if data is None:
        raise RiskError(
            STATE_UNREADABLE,
            f"{path} is not there.",
            field=str(path),
            hint="Check the path. A gateway saves its state after 5 min; `ringfence risk train` writes a forest.",
        )
    return open_state(data, kind, keys={key_id(public): public})
