"""`ringfence policy check`: everything that can be wrong with a bundle, with file, line and remedy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ringfence.policies.cli.source import add_bundle, folder_of, write_file
from ringfence.policies.errors import PolicyError
from ringfence.terminal import print_json, printable

if TYPE_CHECKING:
    from ringfence.policies.analysis.findings import Finding

SUMMARY: Final = "find what is wrong in a bundle: file, line and remedy"
DESCRIPTION: Final = (
    "Check a bundle's layout, syntax and types, and that its cases can be read (`ringfence policy test` runs them). "
    "Look for policies that can never match or that may err, for reads of attributes that may be missing, and for "
    "names that are used nowhere. Needs no signature. Exit status 1 where anything but a note was found. Needs the "
    "extra `policy-tools`."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_bundle(parser)
    parser.add_argument("--sarif", type=Path, metavar="FILE", help="write the findings as SARIF 2.1.0 too")
    parser.add_argument(
        "--prefix",
        default="",
        metavar="PATH",
        help="the bundle's folder as SARIF is to name it, such as policies/prod/",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings; 1 where one is an error or a warning."""
    from ringfence.policies.analysis.findings import Level, sarif

    found = findings(arguments.bundle)
    if arguments.sarif is not None:
        import json
        from importlib.metadata import version

        document = sarif(found, version("ringfence"), arguments.prefix)
        write_file(arguments.sarif, json.dumps(document, indent=2) + "\n", "--sarif")
    bad = any(finding.level is not Level.NOTE for finding in found)
    if arguments.json:
        print_json({"ok": not bad, "findings": [finding.document() for finding in found]})
        return int(bad)
    for finding in found:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        sys.stdout.write(printable(f"{place}: {finding.level}: {finding.message} [{finding.rule}]") + "\n")
        sys.stdout.write(f"    {printable(finding.remedy)}\n")
    if not found:
        sys.stdout.write("Nothing found.\n")
    return int(bad)


def findings(name: str) -> list[Finding]:
    """Everything that is found in a bundle."""
    from ringfence.policies.analysis.findings import from_error
    from ringfence.policies.analysis.lint import lint, scan
    from ringfence.policies.assembly import check_limits
    from ringfence.policies.cli.source import open_bundle
    from ringfence.policies.folder import read_files
    from ringfence.policies.tokens import policy_ids

    try:
        files = read_files(folder_of(name))
        check_limits(files)
    except PolicyError as error:
        if error.code.name == "policy.unreadable":
            raise
        return [from_error(error)]
    found = scan(files)
    if found:
        return found
    try:
        bundle = open_bundle(name)
    except PolicyError as error:
        error.field = error.field.removeprefix(f"{name}/")
        return [from_error(error)]
    return lint(bundle, policy_ids(files))
