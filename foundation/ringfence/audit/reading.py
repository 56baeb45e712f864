"""`ringfence audit show | tail | export`: records as they stand, without checking them."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import msgspec

from ringfence.audit.errors import NOT_FOUND, AuditError
from ringfence.audit.files import read_blocks
from ringfence.audit.folder import is_log, read_layout
from ringfence.audit.kinds import KINDS
from ringfence.audit.records import Entry, decode_line
from ringfence.audit.segments import records_name
from ringfence.audit.selection import Selection, document, iso_time, parse_time
from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.terminal import print_json, printable

POLL_S = 0.2
COLUMNS = ("log", "seq", "time", "kind", "event", "verdict", "code", "session", "principal", "job_id", "data")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def configure(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `show`, `tail` and `export`."""
    show = actions.add_parser(
        "show", help="print records", description="Print records as they stand, oldest first, without checking them."
    )
    _common(show)
    show.add_argument("--limit", type=int, metavar="N", help="only the newest N of each log (default: all)")

    tail = actions.add_parser(
        "tail",
        help="print the newest records, and with --follow each new one",
        description="Print the newest records of each log, and with --follow go on with each new one until it is "
        "interrupted. With --json one document a line.",
    )
    _common(tail)
    tail.add_argument("--limit", type=int, metavar="N", default=10, help="how many of each log (default: 10)")
    tail.add_argument("--follow", action="store_true", help="wait for new records")

    export = actions.add_parser(
        "export",
        help="write records as NDJSON or CSV",
        description="Write records for other programs. CSV cells that a spreadsheet would take for a formula begin "
        "with an apostrophe; NDJSON is exact.",
    )
    _common(export)
    export.add_argument("--format", choices=("ndjson", "csv"), default="ndjson", help="default: ndjson")
    export.add_argument("--output", type=Path, metavar="FILE", help="a new file (default: standard output)")


def run(arguments: argparse.Namespace) -> int:
    """Runs one of the three; raises AuditError or UsageError for bad input."""
    selection = _selection(arguments)
    logs = logs_in(arguments.folder)
    if arguments.action == "export":
        return _export(arguments, logs, selection)
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(BAD_ARGUMENT, "--limit must be 1 or more.", field="--limit", hint="Leave it out for all.")
    if arguments.action == "tail":
        return _tail(logs, selection, arguments.limit, follow=arguments.follow, as_json=arguments.json)
    return _show(logs, selection, arguments.limit, as_json=arguments.json)


def logs_in(folder: Path) -> list[Path]:
    """The folder itself when it is a log, else each log in its sub-folders. Raises AuditError(audit.not_found)."""
    if is_log(folder):
        return [folder]
    logs = sorted(path for path in folder.iterdir() if is_log(path)) if folder.is_dir() else []
    if not logs:
        raise AuditError(
            NOT_FOUND,
            f"{folder} holds no audit log.",
            field="FOLDER",
            hint="Ask `ringfence audit path --state DIR` for the folder.",
        )
    return logs


def readable(entry: Entry) -> str:
    """One line: number, time in UTC, kind, and each field that says something."""
    fields: dict[str, object] = msgspec.to_builtins(entry.record)
    said = [
        f"{name}={value if isinstance(value, str | int) else json.dumps(value)}"
        for name, value in fields.items()
        if value not in ("", 0, [], ())
    ]
    return printable(f"{entry.seq:>6} {iso_time(entry.time_ns)} {entry.record.kind:<11} {' '.join(said)}")


class Reader:
    """The records of one log from its first on; `more` may be called again for those that came since."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segment = 0
        self._read = 0

    def more(self) -> Iterator[Entry]:
        """The whole lines that were not read yet. Raises AuditError(audit.corrupt) for one that is no record."""
        for first in read_layout(self._folder).records:
            if first < self._segment:
                continue
            if first > self._segment:
                self._segment, self._read = first, 0
            yield from self._segment_from(self._folder / records_name(first))

    def _segment_from(self, path: Path) -> Iterator[Entry]:
        for lines, _ in read_blocks(path, skip=self._read):
            for line in lines:
                header = self._read == 0
                self._read += len(line) + 1
                if not header:
                    yield decode_line(line)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what `ringfence audit path` prints, or one log")
    parser.add_argument("--kind", choices=KINDS, help="only records of this kind")
    parser.add_argument("--since", metavar="TIME", help="only from then on: 2027-01-15, 2027-01-15T08:00:00Z, 2h (ago)")
    parser.add_argument("--until", metavar="TIME", help="only before then")
    parser.add_argument("--session", metavar="ID", help="only records that name this session")
    parser.add_argument("--principal", metavar="PRINCIPAL", help="only records that name it; a client's is its key id")
    parser.add_argument("--job", metavar="ID", help="only records of this job")
    parser.add_argument("--verdict", choices=("allow", "deny"), help="only decisions with this verdict")


def _selection(arguments: argparse.Namespace) -> Selection:
    now = time.time_ns()
    since, until = arguments.since, arguments.until
    return Selection(
        kind=arguments.kind or "",
        since_ns=parse_time(since, "--since", now) if since else 0,
        until_ns=parse_time(until, "--until", now) if until else 0,
        session=arguments.session or "",
        principal=arguments.principal or "",
        job=arguments.job or "",
        verdict=arguments.verdict or "",
    )


def _chosen(reader: Reader, selection: Selection, limit: int | None) -> Iterable[Entry]:
    entries = (entry for entry in reader.more() if selection.matches(entry))
    return entries if limit is None else deque(entries, maxlen=limit)


def _show(logs: list[Path], selection: Selection, limit: int | None, *, as_json: bool) -> int:
    shown: list[dict[str, object]] = []
    for log in logs:
        chosen = _chosen(Reader(log), selection, limit)
        if as_json:
            shown.extend(document(log.name, entry) for entry in chosen)
            continue
        sys.stdout.write(f"{printable(str(log))}\n")
        for entry in chosen:
            sys.stdout.write(f"  {readable(entry)}\n")
    if as_json:
        print_json({"records": shown})
    return 0


def _tail(logs: list[Path], selection: Selection, limit: int, *, follow: bool, as_json: bool) -> int:
    readers = [(log, Reader(log)) for log in logs]
    wanted: int | None = limit
    while True:
        for log, reader in readers:
            for entry in _chosen(reader, selection, wanted):
                text = json.dumps(document(log.name, entry)) if as_json else f"{printable(log.name)} {readable(entry)}"
                sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        if not follow:
            return 0
        wanted = None
        time.sleep(POLL_S)


def _export(arguments: argparse.Namespace, logs: list[Path], selection: Selection) -> int:
    exported = 0
    with _output(arguments.output) as output:
        rows = csv.writer(output, lineterminator="\n")
        if arguments.format == "csv":
            rows.writerow(COLUMNS)
        for log in logs:
            for entry in _chosen(Reader(log), selection, None):
                exported += 1
                if arguments.format == "csv":
                    rows.writerow(_row(document(log.name, entry)))
                else:
                    output.write(json.dumps(document(log.name, entry)) + "\n")
    if arguments.output is not None:
        if arguments.json:
            print_json({"exported": exported, "output": str(arguments.output)})
        else:
            sys.stdout.write(f"{exported} records in {printable(str(arguments.output))}\n")
    return 0


def _row(said: dict[str, object]) -> list[str]:
    data = said["data"]
    fields = {**data, **said} if isinstance(data, dict) else said
    cells = (fields.get(column, "") for column in COLUMNS)
    return [_cell(cell if isinstance(cell, str) else json.dumps(cell)) for cell in cells]


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise UsageError(
            BAD_ARGUMENT, f"{path} is there already.", field="--output", hint="Name a file that is not."
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        yield file
