"""One TOML document into one typed value, strictly, naming the line of whatever is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ringfence.config.errors import BAD_TOML, BAD_VALUE, MISSING_KEY, UNKNOWN_KEY, ConfigError
from ringfence.config.positions import key_lines
from ringfence.config.values import MEANINGS, Written, resolved
from ringfence.config.words import known

T = TypeVar("T")

MAX_DEPTH = 32

_AT = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`", re.DOTALL)
_PATTERN = re.compile(r"Expected `str` matching regex (?P<pattern>.*)", re.DOTALL)
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_LINE = re.compile(r"(?P<what>.*) \(at line (?P<line>\d+), column \d+\)", re.DOTALL)


def tables(data: bytes, source: str) -> tuple[dict[str, Any], str]:
    """`data` as TOML tables, and as text; `ConfigError` config.bad_toml with the line where it is none."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(BAD_TOML, "the file is not UTF-8.", source=source, line=line) from error
    try:
        values = tomllib.loads(text)
        _check_depth(values)
    except RecursionError as error:
        raise ConfigError(BAD_TOML, "its values are nested too deeply.", source=source) from error
    except ValueError as error:  # TOMLDecodeError, and int() of more digits than Python allows
        said = _LINE.fullmatch(str(error))
        what = said["what"] if said else str(error)
        line_said = int(said["line"]) if said else None
        raise ConfigError(BAD_TOML, f"this is not TOML: {what}.", source=source, line=line_said) from error
    return values, text


def convert(data: Mapping[str, Any], text: str, kind: type[T], *, source: str, folder: Path, hint: str = "") -> T:
    """`data` (the tables of `text`) as a value of type `kind`, a msgspec struct that forbids unknown fields.

    `source` names the file in messages, `folder` is what relative `Path` values are resolved against.
    Raises `ConfigError` config.unknown_key, config.missing_key or config.bad_value with key and line.
    """

    def decode(wanted: type, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"Expected `str`, got `{type(value).__name__}`")  # noqa: TRY004 - what msgspec passes on
        if issubclass(wanted, Written):
            return wanted.from_text(value, folder)
        if wanted is not Path:
            raise TypeError(f"no configuration value can be a {wanted.__name__}")
        return resolved(value, folder)

    try:
        return msgspec.convert(data, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise _located(str(error), text, kind, source, hint) from error


def _check_depth(values: dict[str, Any]) -> None:
    """Everything that walks the values after this recurses, and must not run out of stack over somebody's file."""
    level: list[object] = [values]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise RecursionError


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _located(said: str, text: str, kind: type, source: str, hint: str) -> ConfigError:
    match = _AT.fullmatch(said)
    what, steps = (match["what"], match["path"] or "") if match else (said, "")
    path: tuple[str | int, ...] = ()
    for step in _STEP.finditer(steps):
        if step["key"] is not None:
            path = (*path, step["key"])
        elif step["index"] is not None:
            path = (*path, int(step["index"]))
        else:  # msgspec does not say which key of a free-form table: the table's own line is the nearest
            break
    where = _dotted(path) or "the file"
    if match and match["key"]:
        where = f"a key of {where}"
    if refused := _PATTERN.fullmatch(what):
        meant = [meaning for pattern, meaning in MEANINGS.items() if repr(pattern) == refused["pattern"]]
        what = f"Expected {meant[0]}" if meant else what
    if what.startswith("Invalid enum value") and (words := known(kind, path)):
        what = f"{what}; it takes {', '.join(words)}"
    code, message = BAD_VALUE, f"{where}: {what[:1].lower()}{what[1:]}."
    if unknown := _UNKNOWN.fullmatch(what):
        path = (*path, unknown["key"])
        code, message = UNKNOWN_KEY, f"there is no key {_dotted(path)!r}."
    elif missing := _MISSING.fullmatch(what):
        path = (*path, missing["key"])
        code, message = MISSING_KEY, f"the key {_dotted(path)!r} is required."
    return ConfigError(code, message, source=source, line=_nearest(text, path), field=_dotted(path), hint=hint)


def _nearest(text: str, path: tuple[str | int, ...]) -> int | None:
    """The line of `path`, or of the innermost table around it that the text names."""
    lines = key_lines(text)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _dotted(path: tuple[str | int, ...]) -> str:
    named = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return named.removeprefix(".")
