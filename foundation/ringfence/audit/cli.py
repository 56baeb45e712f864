"""Find, read and check the audit log offline."""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ringfence.audit.checkpoint import MAX_CHECKPOINT_LINE
from ringfence.audit.errors import BAD_KEY_FILE, NOT_FOUND, UNSIGNED, AuditError
from ringfence.audit.files import read_lines
from ringfence.audit.records import KINDS, MAX_LINE, Entry, decode_line
from ringfence.audit.recovery import CHECKPOINTS, RECORDS, SIGNER
from ringfence.audit.verifier import TAIL_NOTE, Report, verify_log
from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.terminal import print_json, printable

UNPINNED_NOTE = (
    "The key came from the folder itself and was not pinned, so this shows only that the log agrees with itself: "
    "give the owner's published key with --key."
)
_BEGIN, _END = b"-----BEGIN RINGFENCE PUBLIC KEY-----", b"-----END RINGFENCE PUBLIC KEY-----"


@dataclass(frozen=True, slots=True)
class _Checked:
    folder: Path
    report: Report
    signer: str
    pinned: bool


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds `path`, `verify` and `show`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    path = actions.add_parser("path", help="print the folder that holds a state directory's logs")
    path.add_argument("--state", type=Path, required=True, metavar="DIR", help="the state directory")

    verify = actions.add_parser(
        "verify",
        help="check a log, or each log in a folder, with a public key alone",
        description="Check the chain of records and the signed checkpoints of a log, or of each log in the folder's "
        "sub-folders. Needs no network and no running Ringfence. Exit status 1 when a log does not hold; the first "
        f"bad record is named. {TAIL_NOTE}",
    )
    verify.add_argument("folder", type=Path, metavar="FOLDER", help="what `ringfence audit path` prints, or one log")
    verify.add_argument("--key", type=Path, metavar="FILE", help="public key that must have signed: a .pub file")

    show = actions.add_parser(
        "show", help="print records", description="Print records as they stand, oldest first, without checking them."
    )
    show.add_argument("folder", type=Path, metavar="FOLDER", help="what `ringfence audit path` prints, or one log")
    show.add_argument("--kind", choices=KINDS, help="only records of this kind")
    show.add_argument("--limit", type=int, metavar="N", help="only the newest N of each log (default: all)")


def run(arguments: argparse.Namespace) -> int:
    """Runs one action. Returns 1 when a log does not hold; raises AuditError or UsageError for bad input."""
    if arguments.action == "path":
        return _path(arguments.state, as_json=arguments.json)
    if arguments.action == "verify":
        return _verify(arguments.folder, arguments.key, as_json=arguments.json)
    return _show(arguments.folder, arguments.kind, arguments.limit, as_json=arguments.json)


def _path(state: Path, *, as_json: bool) -> int:
    folder = state / "audit"
    if not folder.is_dir():
        raise AuditError(
            NOT_FOUND,
            f"{state} holds no audit log.",
            field="--state",
            hint="Give the state directory of an agent or a gateway that has run.",
        )
    if as_json:
        print_json({"path": str(folder)})
    else:
        sys.stdout.write(f"{folder}\n")
    return 0


def _verify(folder: Path, key: Path | None, *, as_json: bool) -> int:
    pinned = _read_key(key) if key else None
    checked = [_check(log, pinned) for log in _logs(folder)]
    ok = all(one.report.error is None for one in checked)
    if as_json:
        print_json({"logs": [_described(one) for one in checked], "ok": ok})
        return 0 if ok else 1
    for one in checked:
        sys.stdout.write(f"{printable(_sentence(one))}\n")
    if pinned is None:
        sys.stdout.write(f"{UNPINNED_NOTE}\n")
    sys.stdout.write(f"{TAIL_NOTE}\n")
    return 0 if ok else 1


def _check(folder: Path, pinned: bytes | None) -> _Checked:
    # Here, because the log itself must not depend on a particular algorithm; only this command composes the two.
    from ringfence.crypto import COMPOSITE, key_id

    try:
        public = pinned if pinned is not None else _read_key(folder / SIGNER)
    except AuditError as error:
        return _Checked(folder, Report(error=error), "", pinned=False)
    # The size before the records, so that a log which is still being written is never behind its checkpoints.
    until = _size(folder / CHECKPOINTS)
    report = verify_log(
        read_lines(folder / RECORDS, MAX_LINE),
        read_lines(folder / CHECKPOINTS, MAX_CHECKPOINT_LINE, until=until),
        public,
        COMPOSITE.verify,
    )
    if report.error is None and report.records and not report.checkpoints:
        report = replace(report, error=_unsigned())
    return _Checked(folder, report, key_id(public), pinned=pinned is not None)


def _described(checked: _Checked) -> dict[str, object]:
    report = checked.report
    error = report.error
    return {
        "folder": str(checked.folder),
        "records": report.records,
        "checkpoints": report.checkpoints,
        "uncovered": report.uncovered,
        "head": report.head,
        "signer": checked.signer,
        "pinned": checked.pinned,
        "ok": error is None,
        "bad_record": report.bad_record,
        "error": None if error is None else {"code": error.code.name, "message": error.message},
    }


def _sentence(checked: _Checked) -> str:
    report = checked.report
    if report.error is not None:
        return f"{checked.folder}: DOES NOT HOLD: {report.error}"
    parts = [
        f"{checked.folder}: ok, {report.records} records, {report.checkpoints} checkpoints by {checked.signer}",
        f"head {report.head}",
    ]
    if report.uncovered:
        parts.append(f"the last {report.uncovered} not yet covered by a checkpoint")
    if report.torn:
        parts.append(f"{report.torn} bytes of a half-written record that was never acknowledged")
    return ", ".join(parts)


def _show(folder: Path, kind: str | None, limit: int | None, *, as_json: bool) -> int:
    if limit is not None and limit < 1:
        raise UsageError(BAD_ARGUMENT, "--limit must be 1 or more.", field="--limit", hint="Leave it out for all.")
    shown: list[dict[str, object]] = []
    for log in _logs(folder):
        entries = (entry for entry in _entries(log) if kind in (None, entry.record.kind))
        chosen = entries if limit is None else iter(deque(entries, maxlen=limit))
        if as_json:
            shown.extend(_document(log, entry) for entry in chosen)
            continue
        sys.stdout.write(f"{printable(str(log))}\n")
        for entry in chosen:
            sys.stdout.write(f"  {_readable(entry)}\n")
    if as_json:
        print_json({"records": shown})
    return 0


def _entries(folder: Path) -> Iterator[Entry]:
    for line in read_lines(folder / RECORDS, MAX_LINE):
        if line.endswith(b"\n"):
            yield decode_line(line)


def _document(folder: Path, entry: Entry) -> dict[str, object]:
    return {
        "log": folder.name,
        "seq": entry.seq,
        "time_ns": entry.time_ns,
        "kind": entry.record.kind,
        "data": msgspec.to_builtins(entry.record),
    }


def _readable(entry: Entry) -> str:
    """One line: number, time in UTC, kind, and each field that says something."""
    seconds, rest = divmod(entry.time_ns, 1_000_000_000)
    time = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"
    fields: dict[str, object] = msgspec.to_builtins(entry.record)
    said = [
        f"{name}={value if isinstance(value, str | int) else json.dumps(value)}"
        for name, value in fields.items()
        if value not in ("", 0, [], ())
    ]
    return printable(f"{entry.seq:>6} {time} {entry.record.kind:<11} {' '.join(said)}")


def _logs(folder: Path) -> list[Path]:
    """The folder itself when it is a log, else each log in its sub-folders."""
    if _is_log(folder):
        return [folder]
    logs = sorted(path for path in folder.iterdir() if _is_log(path)) if folder.is_dir() else []
    if not logs:
        raise AuditError(
            NOT_FOUND,
            f"{folder} holds no audit log.",
            field="FOLDER",
            hint="Ask `ringfence audit path --state DIR` for the folder.",
        )
    return logs


def _is_log(folder: Path) -> bool:
    # Any of its files will do: a log whose records were removed must be reported, not passed over.
    return folder.is_dir() and any((folder / name).exists() for name in (RECORDS, CHECKPOINTS, SIGNER))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_key(path: Path) -> bytes:
    """A raw public key from a file that holds it in hexadecimal (`signer.pub`) or armoured (`NAME.pub`)."""
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError as error:
        raise AuditError(NOT_FOUND, f"The key file {path} is missing.") from error
    try:
        if text.startswith(_BEGIN) and text.endswith(_END):
            key = base64.b64decode(b"".join(text[len(_BEGIN) : -len(_END)].split()), validate=True)
        else:
            key = bytes.fromhex(text.decode("ascii"))
    except (binascii.Error, ValueError) as error:
        raise _bad_key_file(path) from error
    if not key:
        raise _bad_key_file(path)
    return key


def _unsigned() -> AuditError:
    return AuditError(
        UNSIGNED,
        "No checkpoint covers any of its records, so nothing in it was checked against a key.",
        hint="After a crash, start its process again: opening the log signs what is there.",
    )


def _bad_key_file(path: Path) -> AuditError:
    return AuditError(
        BAD_KEY_FILE,
        f"{path} is not a public key.",
        hint="Give the signer.pub of a log or the .pub file of `ringfence trust generate`.",
    )
