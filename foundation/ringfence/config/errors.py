"""What can be wrong with a configuration file."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError

UNREADABLE = Code("config.unreadable", Kind.NOT_FOUND)
BAD_TOML = Code("config.bad_toml", Kind.INVALID)
UNKNOWN_KEY = Code("config.unknown_key", Kind.INVALID)
MISSING_KEY = Code("config.missing_key", Kind.INVALID)
BAD_VALUE = Code("config.bad_value", Kind.INVALID)
WRONG_COMPONENT = Code("config.wrong_component", Kind.INVALID)


class ConfigError(RingfenceError):
    """A file that does not describe its component; `line` (from 1) is where, or None where no line is at fault."""

    def __init__(
        self, code: Code, message: str, *, source: str, line: int | None = None, field: str = "", hint: str = ""
    ) -> None:
        where = source if line is None else f"{source}:{line}"
        super().__init__(code, f"{where}: {message}", field=field, hint=hint)
        self.line = line
