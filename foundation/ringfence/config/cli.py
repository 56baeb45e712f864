"""Check a configuration file, or print an example to start from."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringfence.config.loader import Component

COMPONENTS = "ringfence.components"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="load a file as its component would, and print the values in force",
        description="Load a file exactly as the component named by its top-level key `component` would, and the keys, "
        "the trust list and the policies that it names, without starting anything. Prints `ok` and every value in "
        "force; an error names the key and its line, or the file that does not load. Run it as the daemon's user.",
    )
    check.add_argument("file", metavar="FILE", type=Path, help="the TOML file to check")
    example = actions.add_parser(
        "example",
        help="print a configuration file to start from",
        description="Print a configuration file of a component to start from, with its keys explained. The gateway's "
        "tables for identity, sign-in and the hosts in front of it are on pages of their own.",
    )
    example.add_argument("component", metavar="COMPONENT", choices=sorted(components()), help="agent or gateway")


def run(arguments: argparse.Namespace) -> int:
    from ringfence.terminal import print_json

    if arguments.action == "example":
        text = component(arguments.component).example
        if arguments.json:
            print_json({"component": arguments.component, "example": text})
        else:
            sys.stdout.write(text)
        return 0
    values = check(arguments.file)
    if arguments.json:
        print_json({"ok": True, "file": str(arguments.file), "values": values})
    else:
        sys.stdout.write("ok\n")
        _print_values(values)
    return 0


def check(path: Path) -> dict[str, object]:
    """The values in force of the file at `path`, once everything that it names has loaded.

    Raises `ConfigError` with the line at fault, or the error of the key, trust list or policy bundle at fault.
    """
    from ringfence.config.document import tables
    from ringfence.config.errors import WRONG_COMPONENT, ConfigError
    from ringfence.config.files import read_bounded
    from ringfence.config.loader import component_name, effective, parse
    from ringfence.config.positions import key_lines

    data = read_bounded(path)
    values, text = tables(data, str(path))
    name = component_name(values, text, str(path))
    if name not in components():
        raise ConfigError(
            WRONG_COMPONENT,
            f"there is no component {name!r}.",
            source=str(path),
            line=key_lines(text).get(("component",)),
            field="component",
            hint=f"The components are: {', '.join(sorted(components()))}.",
        )
    value = parse(data, component(name), source=str(path), folder=path.absolute().parent)
    value.open()
    return effective(value)


def components() -> dict[str, importlib.metadata.EntryPoint]:
    """Every component that Ringfence registers: name -> where its configuration value is declared."""
    entries = importlib.metadata.distribution("ringfence").entry_points.select(group=COMPONENTS)
    return {entry.name: entry for entry in entries}


def component(name: str) -> type[Component]:
    """The configuration type of the component `name`, one of `components()`."""
    kind: type[Component] = components()[name].load()
    return kind


def _print_values(values: dict[str, object], prefix: str = "") -> None:
    from ringfence.terminal import printable

    for key, value in values.items():
        if isinstance(value, dict):
            _print_values(value, f"{prefix}{key}.")
        else:
            sys.stdout.write(printable(f"  {prefix}{key} = {value!r}") + "\n")
