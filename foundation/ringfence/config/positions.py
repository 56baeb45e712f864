"""The line of every key in a TOML text, which `tomllib` does not tell.

The text must already have been accepted by `tomllib`: this reads structure only and checks nothing (TOML 1.0.0).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]

_WHITE = " \t\r\n"


def key_lines(text: str) -> Mapping[Path, int]:
    """Path of each key, table and array element -> the line (from 1) where it first stands.

    Elements of arrays, also of arrays of tables, are counted from 0: `("pin", 1, "name")`.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}  # array of tables -> index of its last element

    def document(self) -> None:
        table: Path = ()
        while self._skip(_WHITE):
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        array = self._peek("[[")
        self._take(2 if array else 1)
        line = self.line
        keys = self._key()
        self._take(2 if array else 1)
        path = self._enter((), keys[:-1], line)
        path = (*path, keys[-1])
        self.lines.setdefault(path, line)
        if array:
            self.tables[path] = self.tables.get(path, -1) + 1
        path = self._element(path)
        self.lines.setdefault(path, line)
        return path

    def _enter(self, path: Path, keys: list[str], line: int) -> Path:
        for key in keys:
            path = self._element((*path, key))
            self.lines.setdefault(path, line)
        return path

    def _element(self, path: Path) -> Path:
        return (*path, self.tables[path]) if path in self.tables else path

    def _pair(self, table: Path) -> None:
        line = self.line
        keys = self._key()
        path = (*self._enter(table, keys[:-1], line), keys[-1])
        self.lines.setdefault(path, line)
        self._take(1)  # the equals sign
        self._skip(" \t")
        self._value(path)

    def _key(self) -> list[str]:
        """One dotted key; stands behind it, and behind white space, afterwards."""
        keys: list[str] = []
        while True:
            self._skip(" \t")
            start = self.at
            if self.text[self.at] in "\"'":
                self._string()
                keys.append(tomllib.loads(f"key = {self.text[start : self.at]}")["key"])
            else:
                while self.text[self.at] not in " \t.=]":
                    self.at += 1
                keys.append(self.text[start : self.at])
            self._skip(" \t")
            if not self._peek("."):
                return keys
            self._take(1)

    def _value(self, path: Path) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1

    def _array(self, path: Path) -> None:
        self._take(1)
        index = 0
        while self._skip(_WHITE + ",") and not self._peek("]"):
            element = (*path, index)
            self.lines.setdefault(element, self.line)
            self._value(element)
            index += 1
        self._take(1)

    def _inline_table(self, path: Path) -> None:
        self._take(1)
        while self._skip(_WHITE + ",") and not self._peek("}"):
            self._pair(path)
        self._take(1)

    def _string(self) -> None:
        quote = self.text[self.at]
        if self._peek(quote * 3):
            self._take(3)
            while not self._peek(quote * 3):
                self._take(2 if quote == '"' and self._peek("\\") else 1)
            # Up to two quotes may stand directly before the closing three.
            while self._peek(quote * 4):
                self._take(1)
            self._take(3)
            return
        self._take(1)
        while not self._peek(quote):
            self._take(2 if quote == '"' and self._peek("\\") else 1)
        self._take(1)

    def _skip(self, white: str) -> bool:
        """Pass over `white` and comments; whether anything is left."""
        while self.at < len(self.text):
            if self.text[self.at] in white:
                self._take(1)
            elif self.text[self.at] == "#" and "\n" in white:
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def _peek(self, expected: str) -> bool:
        return self.text.startswith(expected, self.at)

    def _take(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count
