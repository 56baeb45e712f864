"""`ringfence policy fmt`: policies in Cedar's own layout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from ringfence.terminal import print_json, printable

SUMMARY: Final = "lay out the policies of a folder as Cedar's formatter does"
DESCRIPTION: Final = (
    "Rewrite each policies/*.cedar of a bundle's folder in the layout of Cedar's formatter; comments, ids and "
    "meaning stay. With --check nothing is written, and the exit status is 1 where a file would be."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a bundle's folder")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a file would change")


def run(arguments: argparse.Namespace) -> int:
    """Formats, or says what would be formatted."""
    from ringfence.policies.folder import read_files
    from ringfence.policies.layout import formatted

    files = read_files(arguments.folder)
    changed = {path: text for path, text in formatted(files).items() if text.encode() != files[path]}
    if not arguments.check:
        for path, text in changed.items():
            (arguments.folder / path).write_text(text, encoding="utf-8")
    if arguments.json:
        print_json({"changed": sorted(changed), "written": not arguments.check})
    else:
        for path in sorted(changed):
            sys.stdout.write(printable(f"{'would change' if arguments.check else 'changed'}  {path}") + "\n")
    return 1 if changed and arguments.check else 0
