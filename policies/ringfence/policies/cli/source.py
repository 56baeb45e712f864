"""Where a command's bundle comes from, a folder or what Ringfence ships, and what decides by it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence.errors import BAD_ARGUMENT, RingfenceError, UsageError

if TYPE_CHECKING:
    from ringfence.policies.bundle import Bundle
    from ringfence.policies.decision import Decider

HELP = "a bundle's folder, or the name of a shipped bundle"


def add_bundle(
    parser: argparse.ArgumentParser, name: str = "bundle", metavar: str = "BUNDLE", what: str = HELP
) -> None:
    """Adds an argument that names a bundle."""
    parser.add_argument(name, metavar=metavar, help=what)


def folder_of(name: str) -> Traversable:
    """The folder that an argument names: one that exists, else a shipped bundle's. Raises `PolicyError`."""
    from ringfence.policies.folder import shipped_folder

    path = Path(name)
    return path if path.is_dir() or os.sep in name else shipped_folder(name)


def open_bundle(name: str) -> Bundle:
    """The bundle that an argument names. Raises `PolicyError` with file, line and remedy."""
    from ringfence.policies.folder import load_bundle, open_bundled

    folder = folder_of(name)
    with naming(name):
        return load_bundle(folder) if isinstance(folder, Path) else open_bundled(name)


def own_policies(name: str) -> frozenset[str]:
    """The ids of a bundle's own policies, without those that it extends. Raises `PolicyError`."""
    from ringfence.policies.folder import read_files
    from ringfence.policies.tokens import policy_ids

    with naming(name):
        return policy_ids(read_files(folder_of(name)))


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Where two bundles are read, an error says in which of them its file is."""
    try:
        yield
    except RingfenceError as error:
        if error.field and not error.field.startswith(name):
            error.field = f"{name}/{error.field}"
        raise


def decider(bundle: Bundle) -> Decider:
    """What these commands decide with."""
    from ringfence.policies.engine import CedarDecider

    return CedarDecider(bundle)


def write_file(path: Path, text: str, field: str) -> None:
    """Writes an output file, over an older one; raises `UsageError` where it cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            BAD_ARGUMENT, f"{path} cannot be written: {error.strerror}.", field=field, hint="Name a file in a folder."
        ) from error
