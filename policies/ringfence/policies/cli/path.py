"""`ringfence policy path`: where a bundle lies and which files it has."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from ringfence.policies.cli.source import folder_of
from ringfence.terminal import print_json, printable

SUMMARY: Final = "print where a bundle lies; without one, the shipped bundles"
DESCRIPTION: Final = (
    "Print the folder of a bundle, and its files. Without a bundle, print the name and the folder of each bundle that "
    "Ringfence ships: copy one, or name it in a manifest's `extends`."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a bundle's folder, or a shipped bundle's name")


def run(arguments: argparse.Namespace) -> int:
    """Prints the paths."""
    from ringfence.policies.folder import bundled, read_files, shipped_folder

    if arguments.bundle is None:
        folders = {name: str(shipped_folder(name)) for name in bundled()}
        if arguments.json:
            print_json({"bundles": folders})
            return 0
        for name, path in folders.items():
            sys.stdout.write(f"{name:<20} {printable(path)}\n")
        return 0
    folder = folder_of(arguments.bundle)
    files = sorted(read_files(folder))
    if arguments.json:
        print_json({"path": str(folder), "files": files})
        return 0
    for line in (str(folder), *(f"  {file}" for file in files)):
        sys.stdout.write(f"{printable(line)}\n")
    return 0
