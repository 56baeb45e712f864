"""The frame of the `ringfence` command: finds the sub-command's module, runs it, and turns errors into one line.

A part registers a sub-command in the entry-point group `ringfence.commands` (name = module). The module offers

- `configure(parser)`, which adds its arguments and sub-sub-commands, and
- `run(arguments) -> int`, which returns the exit status and raises `RingfenceError` for whatever a person can mend.

Every parser, nested ones too, already has `--json`; `run` reads it as `arguments.json`.

Exit status: 0 done, 1 a check failed or a request was refused, 2 the command was used wrongly or its input is bad,
141 the reader of the output went away; `ringfence.cli` adds 130, interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import select
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, NoReturn

from ringfence.errors import BAD_ARGUMENT, MISSING_EXTRA, UNREADABLE_FILE, Kind, RingfenceError, UsageError
from ringfence.terminal import print_json, printable

DISTRIBUTION = "ringfence"
COMMANDS = "ringfence.commands"

OK = 0
CHECK_FAILED = 1
BAD_USAGE = 2
OUTPUT_CLOSED = 141  # 128 + SIGPIPE

_USAGE_KINDS = frozenset({Kind.INVALID, Kind.NOT_FOUND, Kind.TOO_LARGE})

# Top-level module of an optional dependency, and the extras that bring it.
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "cedarpy": ("gateway", "demo", "policy-tools"),
    "fido2": ("gateway", "demo"),
    "google": ("agent", "gateway", "demo"),
    "grpc": ("agent", "gateway", "demo"),
    "hip": ("amd",),
    "hpack": ("gateway", "demo"),
    "httptools": ("gateway", "demo"),
    "httpx": ("gateway", "demo"),
    "numpy": ("quantum", "demo"),
    "sklearn": ("risk",),
    "tpm2_pytss": ("tpm",),
    "uvicorn": ("gateway", "demo"),
    "uvloop": ("gateway", "demo"),
    "wasmtime": ("agent", "demo"),
    "z3": ("policy-tools",),
    "ziglang": ("demo",),
}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` instead of printing, and that always has `--json`.

    argparse makes nested parsers of the same class, so they behave alike. A command may declare `--json` again, to
    say what its document holds.
    """

    def __init__(self, **options: Any) -> None:  # argparse's own signature, passed through
        options.setdefault("allow_abbrev", False)
        options.setdefault("conflict_handler", "resolve")
        super().__init__(**options)
        # SUPPRESS: a nested parser that was not given --json must not reset what the outer one read.
        self.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON for programs")

    def error(self, message: str) -> NoReturn:
        raise UsageError(BAD_ARGUMENT, f"{message}.", hint=f"See `{self.prog} --help`.")


class _Version(argparse.Action):
    """Like argparse's own, but looks the version up only when it is asked for: that costs 5 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(DISTRIBUTION, importlib.metadata.version(DISTRIBUTION))
        parser.exit()


def outcome(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit status."""
    try:
        status = _reported(list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        if not _output_closed():
            raise
        # The interpreter flushes once more as it ends; give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    return status


def exit_status(error: RingfenceError) -> int:
    """2 where the caller should have asked differently, 1 where something was refused or failed."""
    return BAD_USAGE if error.code.kind in _USAGE_KINDS else CHECK_FAILED


def commands() -> dict[str, str]:
    """Every registered sub-command: name -> module, in alphabetical order.

    Only Ringfence's own distribution is read: no other installed package can add or replace a command.
    """
    entries = importlib.metadata.distribution(DISTRIBUTION).entry_points.select(group=COMMANDS)
    return {entry.name: entry.value for entry in sorted(entries, key=lambda entry: entry.name)}


def summary(module: str) -> str:
    """The first line of a module's docstring, read from its source: neither it nor its packages are imported."""
    spec: ModuleSpec | None = None
    for depth in range(1, module.count(".") + 2):
        name = ".".join(module.split(".")[:depth])
        spec = PathFinder.find_spec(name, None if spec is None else spec.submodule_search_locations)
        if spec is None:
            return ""
    if spec is None or not isinstance(spec.loader, InspectLoader):
        return ""
    return _first_docstring_line(spec.loader.get_source(module) or "")


def _first_docstring_line(source: str) -> str:
    import ast
    import io
    import tokenize

    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING)
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.STRING:
                text = ast.literal_eval(token.string)
                return text.strip().split("\n")[0] if isinstance(text, str) else ""
            if token.type not in skipped:
                return ""
    except (tokenize.TokenError, SyntaxError, ValueError):
        return ""
    return ""


def _reported(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except SystemExit as stop:  # argparse ends --help and --version this way
        if isinstance(stop.code, int):
            return stop.code
        raise
    except RingfenceError as error:
        return _report(error, arguments)
    except OSError as error:
        if error.filename is None or isinstance(error, BrokenPipeError):
            raise
        reason = error.strerror or type(error).__name__
        hint = "Check the path and its mode."
        return _report(UsageError(UNREADABLE_FILE, f"{reason}: {error.filename}.", hint=hint), arguments)


def _dispatch(arguments: list[str]) -> int:
    known = commands()
    words = [word for word in arguments if word != "--json"]
    chosen = words[0] if words and words[0] in known else None
    parser = Parser(
        prog=DISTRIBUTION,
        description="Run untrusted GPU and quantum jobs for untrusted callers, and prove what happened.",
        epilog="`ringfence COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the installed version")
    choices = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    if chosen is None:
        for name, module in known.items():
            choices.add_parser(name, help=summary(module).replace("%", "%%"))
        parser.parse_args(arguments)
        raise AssertionError("argparse accepted a command line without a command")
    try:
        command = importlib.import_module(known[chosen])
        line = (command.__doc__ or "").strip().split("\n")[0].replace("%", "%%")
        command.configure(choices.add_parser(chosen, help=line, description=line))
        status: int = command.run(parser.parse_args(arguments, argparse.Namespace(json=False)))
    except ImportError as error:
        library = (error.name or "").split(".")[0]
        if library not in OPTIONAL:
            raise
        raise _missing_extra(chosen, library, error) from error
    return status


def _missing_extra(command: str, library: str, error: ImportError) -> RingfenceError:
    extra = command if command in OPTIONAL[library] else OPTIONAL[library][0]
    what = "is not installed" if isinstance(error, ModuleNotFoundError) else "is installed but cannot be loaded"
    return UsageError(
        MISSING_EXTRA,
        f"`ringfence {command}` needs the library {library}, which {what}.",
        field=library,
        hint=f"In the folder of the clone, run: pip install '.[{extra}]'",
    )


def _report(error: RingfenceError, arguments: list[str]) -> int:
    sys.stderr.write(f"ringfence: {printable(str(error))}\n")
    if "--json" in arguments:
        described = {"code": error.code.name, "message": error.message, "field": error.field, "hint": error.hint}
        print_json({"error": described})
    return exit_status(error)


def _output_closed() -> bool:
    """Whether the reader of standard output has gone; any other broken pipe is somebody's bug."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))
