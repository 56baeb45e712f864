"""Policies in the layout of Cedar's formatter, which keeps comments and annotations."""

from __future__ import annotations

from collections.abc import Mapping

import cedarpy

from ringfence.policies.errors import BAD_SYNTAX, PolicyError
from ringfence.policies.tokens import statements

WIDTH = 120


def formatted(files: Mapping[str, bytes]) -> dict[str, str]:
    """The text of each policy file of a bundle as it should be laid out.

    Raises `PolicyError` with file and line for a text that is not Cedar, or that the formatter would not keep.
    """
    return {path: _one(path, files[path]) for path in sorted(files) if path.startswith("policies/")}


def _one(path: str, data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _bad(path, "The file is not UTF-8.") from error
    before = statements(text, path)  # our limits come before Cedar's parser
    if not before:
        return text
    try:
        after = cedarpy.format_policies(text, WIDTH, 2).strip("\n") + "\n"
    except ValueError as error:
        raise _bad(path, f"Cedar cannot parse it: {error}.") from error
    if [one.id for one in statements(after, path)] != [one.id for one in before]:
        raise _bad(path, "The formatter would lose a policy.")
    return after


def _bad(path: str, message: str) -> PolicyError:
    return PolicyError(BAD_SYNTAX, message, field=path, hint="`ringfence policy check` names the line.")
