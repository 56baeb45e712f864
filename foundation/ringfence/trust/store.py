"""The trust list as a file: `trust.toml`, written whole and read strictly."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from ringfence.config import convert, tables
from ringfence.trust.errors import MALFORMED, MISSING_FILE, UNSAFE_FILE, TrustError
from ringfence.trust.files import locked, read, replace
from ringfence.trust.pins import TIME_LIMIT, Pin, Role, TrustList

FILE_NAME = "trust.toml"

_HEADING = """\
# Ringfence's pinned keys. Written by `ringfence trust`; a key that is not listed here is refused.
version = 1
"""

Time = Annotated[int, msgspec.Meta(ge=0, lt=TIME_LIMIT)]


class _WirePin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    role: Role
    key_id: str
    public_key: bytes
    added_at: Time
    groups: tuple[str, ...] = ()
    expires_at: Time | None = None


class _WireList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    pin: tuple[_WirePin, ...] = ()


def load(path: Path) -> TrustList:
    """The trust list in the file at `path`.

    Raises `TrustError`: trust.missing_file, trust.unsafe_file where others than its owner may write it, and
    whatever `parse` raises.
    """
    return parse(read(path, _nobody_else_writes), str(path))


def parse(data: bytes, source: str) -> TrustList:
    """The trust list in the bytes of a trust file; `source` names it in errors. Reads no file.

    Raises `ConfigError` with the line where the file has another shape, `TrustError` trust.malformed or
    trust.conflict where its pins cannot be meant.
    """
    values, text = tables(data, source)
    wire = convert(values, text, _WireList, source=source, folder=Path(), hint="`ringfence trust` writes this file.")
    try:
        return TrustList(tuple(_pin(entry) for entry in wire.pin))
    except TrustError as error:
        raise TrustError(error.code, f"{source}: {error.message}", field=error.field, hint=error.hint) from error


def emit(trust: TrustList) -> bytes:
    """The bytes of a trust file that `parse` reads back as an equal list."""
    return "\n".join([_HEADING, *(_entry(pin) for pin in trust.pins)]).encode()


def save(path: Path, trust: TrustList) -> None:
    """Put `trust` (mode 0600) in the place of the file at `path`, durably and never half written."""
    replace(path, emit(trust))


def change(path: Path, edit: Callable[[TrustList], TrustList]) -> TrustList:
    """Replace the list at `path` (an empty one where there is no file) by what `edit` makes of it, and return that.

    Two changes at a time wait for each other. Raises what `load` and `edit` raise, and then changes nothing.
    """
    with locked(path.parent):
        try:
            held = load(path)
        except TrustError as error:
            if error.code is not MISSING_FILE:
                raise
            held = TrustList()
        edited = edit(held)
        save(path, edited)
    return edited


def quoted(text: str) -> str:
    """`text` as a TOML basic string (TOML 1.0.0, "String")."""
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08X}") for c in text) + '"'


def _pin(entry: _WirePin) -> Pin:
    pin = Pin(entry.name, entry.role, entry.public_key, entry.added_at, entry.groups, entry.expires_at)
    # The id is there for whoever reviews the file; it must not say one key while another one is trusted.
    if pin.key_id != entry.key_id:
        raise TrustError(
            MALFORMED,
            f"the key of the {pin.role.value} {pin.name!r} is {pin.key_id}, not {entry.key_id!r}.",
            field="key_id",
            hint="Remove the pin and add it again from its key file.",
        )
    return pin


def _entry(pin: Pin) -> str:
    lines = [
        "[[pin]]",
        f"name = {quoted(pin.name)}",
        f"role = {quoted(pin.role.value)}",
        f"key_id = {quoted(pin.key_id)}",
        f"public_key = {quoted(base64.b64encode(pin.public).decode('ascii'))}",
        f"added_at = {pin.added_at}",
    ]
    if pin.groups:
        lines.append(f"groups = [{', '.join(quoted(group) for group in pin.groups)}]")
    if pin.expires_at is not None:
        lines.append(f"expires_at = {pin.expires_at}")
    return "\n".join([*lines, ""])


def _nobody_else_writes(status: os.stat_result, path: Path) -> None:
    if stat.S_IMODE(status.st_mode) & 0o022 or status.st_uid not in (0, os.geteuid()):
        raise TrustError(
            UNSAFE_FILE,
            f"{path} can be changed by others than this user.",
            field=str(path),
            hint=f"Review its content, then run: chmod 600 {path}",
        )
