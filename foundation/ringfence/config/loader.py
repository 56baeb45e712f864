"""A component's configuration file into that component's one frozen value."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import msgspec

from ringfence.config.document import convert, tables
from ringfence.config.errors import WRONG_COMPONENT, ConfigError
from ringfence.config.files import read_bounded
from ringfence.config.positions import key_lines


class Component(Protocol):
    """A configuration value: a frozen `msgspec.Struct` with `forbid_unknown_fields=True`, at every level.

    `component` is the name that its files carry in their top-level key `component`, so that no process starts from
    another one's file; `example` is a complete file that loads. Both are class variables, so not keys themselves.
    """

    component: ClassVar[str]
    example: ClassVar[str]

    def open(self) -> object:
        """Load what the file names (keys, trust list, policies) as the daemon does before it starts.

        Raises the `RingfenceError` of whatever does not load.
        """
        ...


C = TypeVar("C", bound=Component)


def load(path: Path, kind: type[C]) -> C:
    """Read the configuration file at `path` as a `kind`.

    Relative paths are resolved against the file's folder. Raises `ConfigError` with the line at fault.
    """
    return parse(read_bounded(path), kind, source=str(path), folder=path.absolute().parent)


def parse(data: bytes, kind: type[C], *, source: str, folder: Path) -> C:
    """The bytes of a configuration file as a `kind`; `source` names it in errors. Reads no file."""
    values, text = tables(data, source)
    named = component_name(values, text, source)
    if named != kind.component:
        raise ConfigError(
            WRONG_COMPONENT,
            f"this file configures the component {named!r}, not {kind.component!r}.",
            source=source,
            line=key_lines(text).get(("component",)),
            field="component",
        )
    settings = {key: value for key, value in values.items() if key != "component"}
    hint = f"`ringfence config example {kind.component}` shows a file to start from."
    return convert(settings, text, kind, source=source, folder=folder, hint=hint)


def component_name(values: dict[str, object], text: str, source: str) -> str:
    """The component that a file says it configures; `ConfigError` config.wrong_component where it names none."""
    named = values.get("component")
    if not isinstance(named, str):
        raise ConfigError(
            WRONG_COMPONENT,
            "the file does not say what it configures.",
            source=source,
            line=key_lines(text).get(("component",)),
            field="component",
            hint='Begin it with a line such as: component = "agent"',
        )
    return named


def effective(value: Component) -> dict[str, object]:
    """Every key of a loaded configuration with the value in force, defaults and resolved paths included."""
    return {"component": value.component, **msgspec.to_builtins(value, enc_hook=str)}
