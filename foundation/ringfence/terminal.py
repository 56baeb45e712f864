"""What commands write for people and for programs: tables, JSON, and text that cannot drive a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def printable(text: str) -> str:
    """`text` on one line, with every control character escaped.

    Messages carry names and paths that someone else chose; unescaped they could move the cursor or fake a line.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def print_json(document: object) -> None:
    """Write `document` to standard output as indented JSON, one trailing newline."""
    import json  # here, because `ringfence --help` writes none and should not pay for it

    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Write `rows` (the first one is the heading) in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
