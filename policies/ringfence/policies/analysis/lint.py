"""The checks of a bundle beyond loading it: what is valid and still cannot be meant.

`scan` works on the files as they are, so that it finds everything that keeps them from loading at once. `lint` works on
a bundle that loads, and asks a solver which policies can match, and which can err.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from cedarpy import pst

from ringfence.policies.analysis.findings import Finding, Level, from_error
from ringfence.policies.analysis.meaning import Subject, decided, subject
from ringfence.policies.analysis.solving import TIMEOUT_MS, Found, Question
from ringfence.policies.analysis.syntax import parse
from ringfence.policies.analysis.translation import GROUP
from ringfence.policies.analysis.unknowns import Unknowns
from ringfence.policies.bundle import Bundle
from ringfence.policies.decision import Action
from ringfence.policies.errors import PolicyError
from ringfence.policies.tokens import Statement, Token, statements, tokens

_SCHEMA_FILE = "schema.cedarschema"
_NAME = re.compile(r'"[^"\\]*"|[A-Za-z_][A-Za-z0-9_]*')


def scan(files: Mapping[str, bytes]) -> list[Finding]:
    """Everything in the files' text that keeps a bundle from loading, and that our own reader can see."""
    found: list[Finding] = []
    optional: dict[str, int] = {}
    try:
        optional = dict(_optional(_text(files, _SCHEMA_FILE)))
    except PolicyError as error:
        found.append(from_error(error))
    first: dict[str, str] = {}
    for path in sorted(path for path in files if path.startswith("policies/")):
        try:
            for statement in statements(_text(files, path), path):
                found += _duplicate(statement, path, first)
                found += _reads(statement, path, optional)
        except PolicyError as error:
            found.append(from_error(error))
    return found


def _text(files: Mapping[str, bytes], path: str) -> str:
    return files.get(path, b"").decode("utf-8", "replace")


def _optional(schema: str) -> Iterator[tuple[str, int]]:
    """The names of optional attributes, each with its line: what stands before a question mark."""
    before: Token | None = None
    for token in tokens(schema, _SCHEMA_FILE):
        if token.text == "?" and before is not None:
            yield before.text.strip('"'), token.line
        before = token


def _duplicate(statement: Statement, path: str, first: dict[str, str]) -> Iterator[Finding]:
    here = f"{path}:{statement.line}"
    other = first.setdefault(statement.id, here)
    if other != here:
        yield Finding(
            "duplicate-id",
            Level.ERROR,
            path,
            statement.line,
            f"Two policies have the id {statement.id}; the other is at {other}.",
            "Rename one: decision records name policies by id.",
        )


def _reads(statement: Statement, path: str, optional: Mapping[str, int]) -> Iterator[Finding]:
    before = ""
    for token in tokens(statement.text, path):
        name = token.text.strip('"')
        if name in optional and before in (".", "["):
            what = "A forbid" if statement.effect == "forbid" else "A permit"
            yield Finding(
                "optional-attribute",
                Level.ERROR,
                path,
                statement.line + token.line - 1,
                f"{what}, {statement.id}, reads {name!r}, which may be missing; Cedar then skips the policy.",
                f'Remove the "?" at {_SCHEMA_FILE}:{optional[name]}: every attribute is required.',
            )
        before = token.text


def lint(bundle: Bundle, own: frozenset[str], *, timeout_ms: int = TIMEOUT_MS) -> list[Finding]:
    """What a bundle that loads holds and cannot mean; of its policies only those in `own` are looked at."""
    one = subject(bundle)
    unused = _unused(bundle) if own.issuperset(policy.id for policy in bundle.policies) else ()
    return [*_matching(one, own, timeout_ms), *unused, *_groups(bundle, own)]


def _matching(one: Subject, own: frozenset[str], timeout_ms: int) -> Iterator[Finding]:
    matched: set[str] = set()
    erring: dict[str, Action] = {}
    unclear: dict[str, str] = {}
    for action in Action:
        unknowns = Unknowns(action)
        meaning = decided(one, unknowns, {})
        unclear |= meaning.outside
        asked = Question(unknowns, unknowns.schema(), True, timeout_ms=timeout_ms)
        asked.within_ranges()
        for parsed, means in zip(one.parsed, meaning.meanings, strict=True):
            name = parsed.policy.id
            if name not in matched and name in own:
                possible = asked.possible_with(means.holds)
                if possible is None:
                    matched.add(name)
                elif possible is Found.UNKNOWN:
                    unclear[name] = possible.value
            looked_at = name in own and name not in erring and name not in meaning.outside
            if looked_at and asked.possible_with(means.errs) is None:
                erring[name] = action
    for parsed in one.parsed:
        policy = parsed.policy
        if policy.id in own and policy.id not in matched and policy.id not in unclear:
            message = f"No request that a gateway asks matches the policy {policy.id}."
            remedy = "Remove it, or mend the condition that excludes another."
            yield Finding("never-matches", Level.WARNING, policy.file, policy.line, message, remedy)
        if policy.id in erring:
            message = f"A {erring[policy.id].value} exists for which the policy {policy.id} is an error, and so denied."
            remedy = "Bound the values before computing with them: an overflow of 64 bits is an error."
            yield Finding("may-err", Level.WARNING, policy.file, policy.line, message, remedy)
        if policy.id in own and policy.id in unclear:
            message = f"Whether the policy {policy.id} can match was not found out: {unclear[policy.id]}."
            yield Finding("not-understood", Level.NOTE, policy.file, policy.line, message, "Read it with care.")


def _unused(bundle: Bundle) -> Iterator[Finding]:
    """Entity types and actions that the schema declares and nothing else names."""
    words = [(token.text.strip('"'), token.line) for token in tokens(bundle.schema, _SCHEMA_FILE)]
    counts: dict[str, int] = {}
    for word, _ in words:
        counts[word] = counts.get(word, 0) + 1
    used = {name for parsed in parse(bundle) if parsed.tree is not None for name in _named(parsed.tree)}
    known = {action.value for action in Action}
    for (kind, _), (name, line) in pairwise(words):
        declares = kind in ("entity", "action") and _NAME.fullmatch(name)
        if declares and name not in known and name not in used and counts[name] == 1:
            yield Finding(
                "unused-entity",
                Level.WARNING,
                _SCHEMA_FILE,
                line,
                f"The {kind} {name} is used nowhere.",
                "Remove it, or name it in a policy.",
            )


def _named(tree: pst.Template) -> Iterator[str]:
    for uid in pst.entity_uids(tree):
        yield uid.type.basename
        yield uid.id


def _groups(bundle: Bundle, own: frozenset[str]) -> Iterator[Finding]:
    known = {
        uid.id: parsed.policy
        for parsed in parse(bundle)
        if parsed.tree is not None
        for uid in pst.entity_uids(parsed.tree)
        if str(uid.type) == GROUP
    }
    tested = {group for case in bundle.cases for group in case.query.groups}
    for case in bundle.cases:
        for group in case.query.groups:
            # A case may show that a group means nothing: then it expects that nothing decides.
            if group not in known and case.policies:
                message = f"The case {case.name!r} is in the group {group!r}, which no policy names."
                remedy = "Mend the name, or leave the group out."
                yield Finding("unknown-group", Level.NOTE, case.file, 0, message, remedy)
    for group, policy in sorted(known.items()):
        if bundle.cases and group not in tested and policy.id in own:
            message = f"No case is in the group {group!r}, which the policy {policy.id} names."
            remedy = "Add a case: a misspelt group matches nobody."
            yield Finding("untested-group", Level.NOTE, policy.file, policy.line, message, remedy)
