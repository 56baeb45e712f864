"""Our own small reader of Cedar text: limits, file and line of each policy, and its annotations.

It runs before Cedar's parser, which recurses without a limit (2,000 parentheses end the process with SIGSEGV), gives no
positions and accepts duplicate ids. It knows Cedar's lexical grammar (Cedar language guide, "Grammar specification")
and no more: a text that it accepts may still be refused by Cedar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ringfence.policies.errors import BAD_ANNOTATION, BAD_SCHEMA, BAD_SYNTAX, TOO_COMPLEX, PolicyError
from ringfence.policies.step_up import FACTOR

MAX_NESTING = 64
"""Deepest nesting of brackets in a file; Cedar's parser takes up to 16 KiB of stack a level."""
MAX_OPERATORS = 500
"""Most operators in one policy: a chain of them becomes a tree of that depth."""
MAX_TYPE_TESTS = 10
"""Most `is` in one policy: Cedar evaluates what stands before `is … in` twice, so that nested ones double the time."""

_TOKEN = re.compile(
    r"""
    (?P<blank>\s+|//[^\n\r]*)
    |(?P<string>"[^"\\]*(?:\\.[^"\\]*)*")
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9]+)
    |(?P<mark>&&|\|\||==|!=|<=|>=|::|[-+*/%!<>=.,:;@?(){}\[\]])
    """,
    re.VERBOSE,
)
_CLOSING = {")": "(", "]": "[", "}": "{"}
_OPERATORS = frozenset({"&&", "||", "+", "-", "*", "!", ".", "if", "when", "unless"})
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Token:
    """One lexical token: its kind ("string", "name", "number" or "mark"), text, offset and line, counted from one."""

    kind: str
    text: str
    start: int
    line: int


@dataclass(frozen=True, slots=True)
class Statement:
    """The text of one policy up to its semicolon, with its line and its annotations as written."""

    id: str
    description: str
    effect: str
    line: int
    text: str
    step_up: str


def tokens(text: str, file: str) -> Iterator[Token]:
    """Split Cedar text into tokens, checking that brackets match and nest at most `MAX_NESTING` deep.

    Raises `PolicyError` (policy.bad_syntax, policy.too_complex) with file and line.
    """
    position, line = 0, 1
    open_brackets: list[str] = []
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _syntax(file, line, f"There is no Cedar token at {text[position]!r}.")
        kind, lexeme = str(match.lastgroup), match.group()
        if kind == "mark":
            _follow(open_brackets, lexeme, file, line)
        if kind != "blank":
            yield Token(kind, lexeme, position, line)
        position = match.end()
        line += lexeme.count("\n")
    if open_brackets:
        raise _syntax(file, line, f"A bracket {open_brackets[-1]!r} is never closed.")


def _follow(open_brackets: list[str], mark: str, file: str, line: int) -> None:
    if mark in "([{":
        open_brackets.append(mark)
        if len(open_brackets) > MAX_NESTING:
            raise PolicyError(
                TOO_COMPLEX,
                f"Brackets nest deeper than {MAX_NESTING} levels.",
                field=f"{file}:{line}",
                hint="Split the condition into several policies.",
            )
    elif mark in _CLOSING and (not open_brackets or open_brackets.pop() != _CLOSING[mark]):
        raise _syntax(file, line, f"A bracket {mark!r} closes nothing.")


def statements(text: str, file: str) -> tuple[Statement, ...]:
    """Split a policy file into its policies, each with an `@id` and a `@description`.

    Raises `PolicyError` with file and line: policy.bad_syntax, policy.too_complex, policy.bad_annotation.
    """
    found: list[Statement] = []
    pending: list[Token] = []
    for token in tokens(text, file):
        pending.append(token)
        if token.text == ";":
            found.append(_statement(pending, text[pending[0].start : token.start + 1], file))
            pending = []
    if pending:
        raise _syntax(file, pending[0].line, "The policy that begins here does not end with a semicolon.")
    return tuple(found)


def policy_ids(files: Mapping[str, bytes]) -> frozenset[str]:
    """The ids of the policies in a bundle's own files (by path inside it); raises `PolicyError` as `statements`."""
    paths = [path for path in files if path.startswith("policies/")]
    return frozenset(one.id for path in paths for one in statements(files[path].decode("utf-8", "replace"), path))


def _statement(pending: list[Token], text: str, file: str) -> Statement:
    line = pending[0].line
    annotations: dict[str, str] = {}
    rest = pending
    while rest[0].text == "@":
        shape = [token.kind if token.kind in ("name", "string") else token.text for token in rest[1:5]]
        if shape != ["name", "(", "string", ")"]:
            raise _annotation(file, rest[0].line, 'An annotation has the form @name("text").')
        name, value = rest[1].text, rest[3].text[1:-1]
        if name in annotations or "\\" in value:
            raise _annotation(file, rest[0].line, f"@{name} is given twice or holds a backslash.")
        annotations[name] = value
        rest = rest[5:]
    if rest[0].text not in ("permit", "forbid"):
        raise _syntax(file, rest[0].line, "A policy begins with its annotations and then permit or forbid.")
    if not _ID.fullmatch(annotations.get("id", "")):
        raise _annotation(file, line, 'Each policy needs an @id("...") of lower-case letters, digits, ".", "_", "-".')
    if not annotations.get("description", "").strip():
        raise _annotation(file, line, f"The policy {annotations['id']} has no @description.")
    step_up = _step_up(annotations, rest[0].text, file, line)
    if sum(token.kind != "string" and token.text in _OPERATORS for token in rest) > MAX_OPERATORS:
        raise PolicyError(
            TOO_COMPLEX,
            f"The policy {annotations['id']} has more than {MAX_OPERATORS} operators.",
            field=f"{file}:{line}",
            hint="Split it into several policies, or compare with a set.",
        )
    if sum(token.kind == "name" and token.text == "is" for token in rest) > MAX_TYPE_TESTS:
        raise PolicyError(
            TOO_COMPLEX,
            f"The policy {annotations['id']} tests more than {MAX_TYPE_TESTS} types.",
            field=f"{file}:{line}",
            hint="Split it into several policies.",
        )
    return Statement(annotations["id"], annotations["description"], rest[0].text, line, text, step_up)


def _step_up(annotations: dict[str, str], effect: str, file: str, line: int) -> str:
    factor = annotations.get("step_up")
    if factor is None:
        return ""
    if effect != "forbid" or not FACTOR.fullmatch(factor):
        raise _annotation(
            file, line, '@step_up stands on a forbid and names a factor of lower-case letters, digits and "-".'
        )
    return factor


def check_schema_text(text: str, file: str) -> None:
    """Check a schema's text against the limits and that it declares no optional attribute.

    Raises `PolicyError` (policy.bad_schema, policy.bad_syntax, policy.too_complex) with file and line.
    """
    for token in tokens(text, file):
        if token.text == "?":
            raise PolicyError(
                BAD_SCHEMA,
                "The schema declares an optional attribute, and Cedar skips a forbid that reads a missing one.",
                field=f"{file}:{token.line}",
                hint='Remove the "?": every attribute is required.',
            )


def _syntax(file: str, line: int, message: str) -> PolicyError:
    return PolicyError(BAD_SYNTAX, message, field=f"{file}:{line}", hint="Mend the text at this line.")


def _annotation(file: str, line: int, message: str) -> PolicyError:
    return PolicyError(
        BAD_ANNOTATION,
        message,
        field=f"{file}:{line}",
        hint='Write @id("what-it-does") and @description("why it is there") above the policy.',
    )
