"""A directory in a file, TOML or JSON by its ending."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ringfence.config import convert, tables
from ringfence.plugin.identity.directory import MAX_ATTRIBUTES, MAX_GROUPS, MAX_TEXT, Snapshot
from ringfence.plugin.identity.errors import DIRECTORY_MALFORMED, IdentityError
from ringfence.plugin.identity.names import checked
from ringfence.plugin.identity.settings import Name
from ringfence.trust import files

MAX_PRINCIPALS: Final = 100_000
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]


class _Principal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    tenant: Annotated[str, Meta(max_length=MAX_TEXT)] = ""
    groups: Annotated[tuple[Text, ...], Meta(max_length=MAX_GROUPS)] = ()
    attributes: Annotated[dict[Name, Text], Meta(max_length=MAX_ATTRIBUTES)] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    principal: Annotated[tuple[_Principal, ...], Meta(max_length=MAX_PRINCIPALS)] = ()


def parse(data: bytes, source: str, *, now: int) -> Snapshot:
    """The directory in the bytes of a file; `source` is its name, which says whether it is TOML or JSON.

    Raises `ConfigError` for TOML of another shape, `identity.directory_malformed`, `identity.name_unsafe`.
    """
    if source.endswith(".json"):
        try:
            held = msgspec.json.decode(data, type=_File)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _malformed(source, f"it is not a directory in JSON ({error})") from None
    else:
        values, text = tables(data, source)
        held = convert(values, text, _File, source=source, folder=Path())
    entries: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {}
    for one in held.principal:
        name = checked(one.name, field="name")
        if name in entries:
            raise _malformed(source, f"the principal {name!r} is in it twice")
        for text in (one.tenant, *one.groups, *one.attributes.values()):
            if text and not text.isprintable():
                raise _malformed(source, f"a value of {name!r} has control characters")
        attributes = tuple(f"{attribute}={value}" for attribute, value in one.attributes.items())
        entries[name] = (one.tenant, tuple(dict.fromkeys(one.groups)), attributes)
    return Snapshot(entries, now)


class DirectoryFile:
    """The file at `path`; one that others than its owner may write is refused, since it gives rights."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self, *, now: int) -> Snapshot:
        data = await asyncio.to_thread(files.read, self._path, _nobody_else_writes)
        return parse(data, str(self._path), now=now)


def _nobody_else_writes(status: os.stat_result, path: Path) -> None:
    if stat.S_IMODE(status.st_mode) & 0o022 or status.st_uid not in (0, os.geteuid()):
        raise IdentityError(
            DIRECTORY_MALFORMED,
            f"{path} can be changed by others than this user.",
            field=str(path),
            hint=f"Review its content, then run: chmod 644 {path}",
        )


def _malformed(source: str, why: str) -> IdentityError:
    return IdentityError(
        DIRECTORY_MALFORMED, f"{source} is refused: {why}.", field=source, hint="docs/identity.md shows a directory."
    )
