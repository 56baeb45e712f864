"""Reads a bundle from a folder or from the bundles that Ringfence ships, and hands it to the checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable
from itertools import islice

from ringfence.policies.assembly import MANIFEST, MAX_FILE_BYTES, MAX_FILES, SCHEMA, assemble
from ringfence.policies.bundle import Bundle
from ringfence.policies.errors import BAD_LAYOUT, BAD_MANIFEST, UNKNOWN_BUNDLE, UNREADABLE, PolicyError

BASE = "default"
"""The shipped bundle that every other shipped one extends."""
_SUFFIXES = {"policies": ".cedar", "tests": ".toml"}
SIGNATURE = "bundle.sig"
"""The detached signature beside a bundle's files; it is no part of the bundle, so that signing changes no digest."""


def load_bundle(folder: Traversable) -> Bundle:
    """Load and check the bundle in a folder (a `pathlib.Path` or a package resource).

    A manifest may extend shipped bundles by name. Call it on a thread with at least 2 MiB of stack (Linux gives 8):
    Cedar's parser takes almost 1 MiB for a policy at our limit of nesting.

    Raises `PolicyError` with file, line and remedy.
    """
    return assemble_with(read_files(folder), shipped_files())


def read_files(folder: Traversable) -> dict[str, bytes]:
    """The bytes of a bundle's files by their path inside it, for `assemble`; its signature is left out.

    Raises `PolicyError` (policy.unreadable, policy.bad_layout).
    """
    try:
        return _read(folder)
    except OSError as error:
        raise PolicyError(
            UNREADABLE,
            f"The bundle cannot be read: {error.strerror}.",
            field=str(folder),
            hint="Give the folder that holds the bundle's manifest.toml.",
        ) from error


def read_signature(folder: Traversable) -> bytes | None:
    """The content of a bundle's signature file, None where there is none; `PolicyError` policy.unreadable."""
    file = folder / SIGNATURE
    try:
        return _bytes(file) if file.is_file() else None
    except OSError as error:
        raise PolicyError(
            UNREADABLE,
            f"The signature cannot be read: {error.strerror}.",
            field=SIGNATURE,
            hint="Check the file's mode.",
        ) from error


def bundled() -> tuple[str, ...]:
    """The names of the bundles that Ringfence ships, sorted."""
    return tuple(sorted(entry.name for entry in _shipped().iterdir() if entry.is_dir()))


def open_bundled(name: str) -> Bundle:
    """Load a shipped bundle by name; raises `PolicyError` (policy.unknown_bundle) for any other name."""
    return assemble_with(read_files(shipped_folder(name)), shipped_files())


def shipped_folder(name: str) -> Traversable:
    """The folder of a shipped bundle; raises `PolicyError` (policy.unknown_bundle)."""
    if name not in bundled():
        raise _unknown(name, bundled())
    return _shipped() / name


def _unknown(name: str, known: Iterable[str]) -> PolicyError:
    return PolicyError(
        UNKNOWN_BUNDLE,
        f"Ringfence ships no policy bundle named {name!r}.",
        field="bundle",
        hint=f"Choose one of: {', '.join(known)}.",
    )


def _shipped() -> Traversable:
    return package_files("ringfence.policies") / "bundles"


def shipped_files() -> dict[str, dict[str, bytes]]:
    """The files of every bundle that Ringfence ships, by name."""
    return {name: read_files(_shipped() / name) for name in bundled()}


def assemble_with(files: Mapping[str, bytes], shipped: Mapping[str, Mapping[str, bytes]]) -> Bundle:
    """Check a bundle whose files are in hand, as are those that it may extend. Raises `PolicyError`."""

    def base_named(name: str) -> Bundle:
        if name not in shipped:
            raise _unknown(name, sorted(shipped))
        return assemble(shipped[name], base_of_shipped)

    def base_of_shipped(name: str) -> Bundle:
        # Shipped bundles extend `default` and nothing else, so that no chain of them has to be followed.
        if name != BASE:
            raise PolicyError(
                BAD_MANIFEST, f"A shipped bundle extends {name!r}.", field=MANIFEST, hint=f"Extend {BASE!r} alone."
            )
        return assemble(shipped[BASE], _no_base)

    return assemble(files, base_named)


def _no_base(name: str) -> Bundle:
    raise PolicyError(
        BAD_MANIFEST, f"The bundle {BASE} extends {name!r}.", field=MANIFEST, hint="Write its policies out instead."
    )


def _read(folder: Traversable) -> dict[str, bytes]:
    """Read no more than shows that a limit is passed; `assemble` says which."""
    files: dict[str, bytes] = {}
    for entry in folder.iterdir():
        if entry.is_file() and entry.name in (MANIFEST, SCHEMA):
            files[entry.name] = _bytes(entry)
        elif entry.is_dir() and entry.name in _SUFFIXES:
            for child in islice(entry.iterdir(), MAX_FILES + 1):
                path = f"{entry.name}/{child.name}"
                if not child.is_file() or not child.name.endswith(_SUFFIXES[entry.name]):
                    raise _unexpected(path)
                files[path] = _bytes(child)
        elif entry.name != SIGNATURE:
            raise _unexpected(entry.name)
    return files


def _bytes(file: Traversable) -> bytes:
    with file.open("rb") as stream:
        return stream.read(MAX_FILE_BYTES + 1)


def _unexpected(path: str) -> PolicyError:
    return PolicyError(
        BAD_LAYOUT,
        f"The bundle holds {path!r}, which has no meaning there.",
        field=path,
        hint="A bundle is manifest.toml, schema.cedarschema, policies/*.cedar, tests/*.toml and bundle.sig, and "
        "nothing else.",
    )
