"""See the main job run on this machine: a session, a job with its receipt, and five refusals."""

from __future__ import annotations

import argparse
import codecs
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ringfence.errors import BAD_ARGUMENT, UNREADABLE_FILE, UsageError
from ringfence.terminal import print_json, print_table

if TYPE_CHECKING:
    from ringfence.client.local import LocalInstallation

DEFAULT_ROWS: Final = 100_000
DEFAULT_SEED: Final = 20_261_123
MAX_ROWS: Final = 3_000_000
HEADING: Final = b"id,amount_cents,region"


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence demo`."""
    parser.description = (
        "Starts an agent and a gateway as separate processes in a state directory and talks to them through the client "
        "library, as any caller would. "
        "Compiled guests are kept in ~/.cache/ringfence. Exit status 0 only if every check held."
    )
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="a CSV with a heading and rows `id,amount_cents,region`"
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=DEFAULT_ROWS,
        metavar="N",
        help=f"rows to make up without --input (1 to {MAX_ROWS:,}; %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the rows made up (%(default)s)")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep keys, logs and configurations there (default: a temporary one)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; 0 if every check held, else 1."""
    from ringfence.client.local import LocalInstallation
    from ringfence.client.showcase import Showcase, made_up_rows

    if not 1 <= arguments.rows <= MAX_ROWS:
        raise UsageError(
            BAD_ARGUMENT,
            f"{arguments.rows:,} rows are not between 1 and {MAX_ROWS:,}.",
            field="rows",
            hint="A submission holds its whole input; choose fewer rows.",
        )
    with _stopped_cleanly(), _state(arguments.state) as state:
        tell = _Teller(quiet=arguments.json)
        content = made_up_rows(arguments.rows, arguments.seed) if arguments.input is None else _read(arguments.input)
        tell("Starting an agent and a gateway as separate processes")
        with LocalInstallation(state) as local:
            report = Showcase(local, tell).run(content)
        report["audit"] = _verify_logs(local, tell)
        report["state"] = str(state)
        report["ok"] = bool(
            report["result"]["matches_reference"]
            and report["receipt"]["verified"]
            and report["audit"]["ok"]
            and all(refusal["held"] for refusal in report["refusals"])
        )
    if arguments.json:
        print_json(report)
    else:
        _show(report, kept=arguments.state is not None)
    return 0 if report["ok"] else 1


class _Teller:
    """Says on a terminal what takes its time; silent elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._started = time.monotonic()
        self._silent = quiet or not sys.stderr.isatty()

    def __call__(self, what: str) -> None:
        if not self._silent:
            sys.stderr.write(f"[{time.monotonic() - self._started:5.1f} s] {what}\n")


@contextmanager
def _state(named: Path | None) -> Iterator[Path]:
    if named is not None:
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="ringfence-demo-") as folder:
        yield Path(folder)


@contextmanager
def _stopped_cleanly() -> Iterator[None]:
    """A SIGTERM, or a terminal that goes away, unwinds like Ctrl-C, so that the processes started here are stopped."""

    def unwind(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            UNREADABLE_FILE, f"{path} cannot be read ({error.strerror}).", field="input", hint="Name a CSV file."
        ) from error
    heading = content.split(b"\n", 1)[0].strip().removeprefix(codecs.BOM_UTF8)
    if heading.replace(b" ", b"") != HEADING:
        raise UsageError(
            BAD_ARGUMENT,
            f"The first line of {path} is not the heading {HEADING.decode()}.",
            field="input",
            hint="Begin the file with that line; rows such as 1,2599,north follow.",
        )
    return content


def _verify_logs(local: LocalInstallation, tell: _Teller) -> dict[str, Any]:
    """Runs `ringfence audit verify` on each log with its owner's public key, as an auditor would."""
    tell("Verifying the audit logs")
    logs: list[dict[str, Any]] = []
    for name in ("gateway", "agent"):
        folder, key = local.audit_folder / name, local.public_key(name)
        command = [sys.executable, "-m", "ringfence.cli", "audit", "verify", str(folder), "--key", str(key), "--json"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)  # noqa: S603 - our own program
        logs += json.loads(done.stdout).get("logs", []) if done.stdout else []
    return {"ok": len(logs) == 2 and all(log["ok"] for log in logs), "logs": logs}


def _show(report: dict[str, Any], *, kept: bool) -> None:
    session, result = report["session"], report["result"]
    print(f"\nSession {session['name']}: X25519 + ML-KEM-768, signed by both sides with Ed25519 + ML-DSA-65.")
    print(report["attestation"]["sentence"])
    _show_trace("Decision on opening the session", session["trace"])

    print(f"\nResult of the job on {report['input']['rows']:,} rows ({report['input']['bytes']:,} bytes)\n")
    reference = result["reference"]
    rows = [["", "guest", "numpy"]]
    rows += [[name, str(value), str(reference.get(name, ""))] for name, value in result["guest"].items()]
    print_table(rows)
    print(f"\n{_mark(result['matches_reference'])} the guest's result equals numpy's.")
    _show_trace("Decision on the job", report["trace"])

    print("\nLimits in force: " + ", ".join(f"{name} {value:,}" for name, value in report["limits"].items()))
    usage = report["receipt"]["usage"]
    print("Used:            " + ", ".join(f"{name} {value:,}" for name, value in usage.items()))
    receipt = report["receipt"]
    print(f"\n{_mark(receipt['verified'])} receipt {receipt['job_id']}, signed by the host's attested key:")
    for name in ("host", "grant_id", "module_digest", "input_digest", "result_digest", "bundle_digest"):
        print(f"    {name:14} {receipt[name]}")

    print("\nRefusals\n")
    lines = [["", "what was tried", "stopped by", "code"]]
    lines += [[_mark(r["held"]), r["name"], r["stopped_by"], r["code"]] for r in report["refusals"]]
    print_table(lines)

    print()
    for log in report["audit"]["logs"]:
        state = "holds" if log["ok"] else f"does not hold: {log['error']}"
        print(
            f"{_mark(log['ok'])} audit log {Path(log['folder']).name}: {log['records']} records, "
            f"{log['checkpoints']} signed checkpoints, the chain {state}."
        )
    if kept:
        command = shlex.join([_own_command(), "audit", "verify", f"{report['state']}/audit"])
        print(f"\nState is kept in {report['state']}; check its logs with: {command}")
    print("\nEvery check held." if report["ok"] else "\nNot every check held; see the marks above.")


def _show_trace(title: str, trace: list[dict[str, Any]]) -> None:
    print(f"\n{title}\n")
    print_table([["stage", "verdict", "micros"], *([s["name"], s["verdict"], str(s["micros"])] for s in trace)])


def _own_command() -> str:
    """How to call `ringfence` from here: the script beside this interpreter, which need not be on the PATH."""
    script = Path(sys.executable).with_name("ringfence")
    if not script.exists():
        return "ringfence"
    return str(script.relative_to(Path.cwd())) if script.is_relative_to(Path.cwd()) else str(script)


def _mark(held: bool) -> str:
    return "ok  " if held else "FAIL"
