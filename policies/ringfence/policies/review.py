"""One comment for a review: what changes between two bundles, proven, replayed and tested, as Markdown.

Text of a bundle, of a request and of an error is shown inside HTML's `code` and `pre` with every character that HTML or
Markdown could take for its own written as a number, so that neither a bundle nor a log can write into the comment,
mention anybody or make a link. Names from a log are numbers: a comment has more readers than a log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ringfence.policies.analysis.coverage import ConditionCover, Coverage
from ringfence.policies.analysis.diff import Difference, Witness
from ringfence.policies.analysis.findings import Finding, Level
from ringfence.policies.bundle import Bundle
from ringfence.policies.cases import CaseResult
from ringfence.policies.masking import Mask
from ringfence.policies.replay import Replay

MAX_TEXT: Final = 2_000
"""Most characters of one text that came from elsewhere."""
MAX_ROWS: Final = 20
"""Most rows of one table or list; the rest is counted."""
MARKER: Final = "<!-- ringfence policy review -->"
"""The comment's first line, by which a workflow finds its older comment."""
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,-;=+")


@dataclass(frozen=True, slots=True)
class Side:
    """One bundle of a comparison, with its cases run and its coverage measured."""

    bundle: Bundle
    results: tuple[CaseResult, ...]
    coverage: Coverage

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        return tuple(result for result in self.results if result.failure)


@dataclass(frozen=True, slots=True)
class Review:
    """Everything that the comment says."""

    base: Side
    head: Side
    difference: Difference
    findings: tuple[Finding, ...]
    replay: Replay | None
    verified: bool

    @property
    def sound(self) -> bool:
        """Whether the proposed bundle holds by itself: its cases pass, and nothing worse than a note was found."""
        return not self.head.failed and all(one.level is Level.NOTE for one in self.findings)


def code(text: str) -> str:
    """Text from elsewhere, as it is and on one line, that can be nothing else."""
    return f"<code>{_escaped(' '.join(text.split()))}</code>"


def _block(text: str) -> str:
    return f"<pre>{_escaped(text)}</pre>"


def _escaped(text: str) -> str:
    short = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " (cut)"
    return "".join(
        one if one in _PLAIN or one == "\n" else f"&#{ord(one)};" if one.isprintable() else "&#65533;" for one in short
    )


def markdown(review: Review) -> str:
    """The comment."""
    parts = [MARKER, f"## Policy review: {code(review.head.bundle.name)}", "", *_summary(review)]
    parts += _differences(review.difference)
    parts += _policies(review.base.bundle, review.head.bundle)
    if review.replay is not None:
        parts += _replayed(review.replay, verified=review.verified)
    parts += _cases(review.head)
    parts += _findings(review.findings)
    return "\n".join(parts).rstrip("\n") + "\n"


def unloadable(name: str, findings: Sequence[Finding]) -> str:
    """The comment on a bundle that does not load."""
    parts = [
        MARKER,
        f"## Policy review: {code(name)}",
        "",
        "**The proposed bundle does not load**, so it decides nothing.",
    ]
    return "\n".join([*parts, "", *_findings(tuple(findings))]).rstrip("\n") + "\n"


def _summary(review: Review) -> list[str]:
    base, head = review.base, review.head
    equal = {
        True: "none: it decides the same for every request",
        None: "**cannot be told**",
        False: "**yes**, see below",
    }
    version = f"{base.bundle.version} → {head.bundle.version}"
    if head.bundle.version <= base.bundle.version and head.bundle.digest != base.bundle.digest:
        version += " — **raise it**: a gateway refuses a version that does not rise"
    rows = [
        ("change of decisions", equal[review.difference.equal]),
        ("cases", f"{len(head.results) - len(head.failed)} of {len(head.results)} hold (before: {len(base.results)})"),
        (
            "conditions covered",
            f"{base.coverage.condition_ratio:.0%} → {head.coverage.condition_ratio:.0%}",
        ),
        ("version", version),
        ("findings", _counted(review.findings)),
    ]
    if review.replay is not None:
        changed = review.replay.changed.total()
        rows.insert(1, ("recorded decisions", f"{changed} of {review.replay.replayed} change"))
    return ["| what | |", "|---|---|", *(f"| {name} | {said} |" for name, said in rows), ""]


def _counted(findings: Sequence[Finding]) -> str:
    counts = [(level, sum(one.level is level for one in findings)) for level in Level]
    return ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts if count) or "none"


def _differences(found: Difference) -> list[str]:
    if found.equal:
        return []
    parts = ["### What changes", ""]
    for witness in found.witnesses:
        parts += _witness(witness)
    if found.witnesses:
        parts += [
            "One request for each action and direction, the most ordinary there is; Cedar decided each twice.",
            "",
        ]
    if found.unclear:
        parts += ["Not everything could be compared:", ""]
        parts += _listed(
            f"- {one.side} {code(one.policy) if one.policy else ''}: {code(one.reason)}" for one in found.unclear
        )
    return parts


def _witness(witness: Witness) -> list[str]:
    request = witness.request
    out_of_range = "" if request.reachable else " (no gateway asks this: a value is out of its range)"
    mark = "🟢" if witness.after.allowed else "🔴"
    unusual = code(json.dumps(request.unusual(), ensure_ascii=True))
    said = [f"{mark} **{witness.change}**: {request.action.value}{out_of_range}, with {unusual}", ""]
    for side, answer in (("before", witness.before), ("after", witness.after)):
        why = ", ".join(code(one) for one in answer.policies or answer.errors) or "no policy permits it"
        said.append(f"- {side}: **{answer.word}**, {why}")
    document = json.dumps(request.document(), indent=1, ensure_ascii=True)
    return [*said, "", "<details><summary>the request</summary>", "", _block(document), "</details>", ""]


def _policies(base: Bundle, head: Bundle) -> list[str]:
    before = {policy.id: policy for policy in base.policies}
    after = {policy.id: policy for policy in head.policies}
    rows = [("removed", before[name]) for name in before if name not in after]
    rows += [("added", after[name]) for name in after if name not in before]
    rows += [("changed", after[name]) for name in after if name in before and after[name].text != before[name].text]
    if not rows:
        return []
    parts = ["### Policies", "", "| | policy | effect | it says |", "|---|---|---|---|"]
    parts += _listed(f"| {how} | {code(one.id)} | {one.effect} | {code(one.description)} |" for how, one in rows)
    return parts


def _replayed(replay: Replay, *, verified: bool) -> list[str]:
    mask = Mask("caller")
    checked = "checked against its owner's key" if verified else "**not** checked against a key"
    parts = [
        "### Recorded decisions",
        "",
        f"{replay.replayed} decisions of the log ({checked}) were taken again: {replay.unchanged} unchanged, "
        f"{replay.changed['newly allowed']} newly allowed, {replay.changed['newly denied']} newly denied.",
        *(f"{count} were not: {reason.value}." for reason, count in replay.passed.items()),
        "",
    ]
    if replay.changed:
        parts += ["| decisions | change | for whom |", "|---:|---|---|"]
        parts += _listed(
            f"| {count} | {change} | {mask(name) if name else 'others'} |"
            for (change, name), count in replay.principals.most_common()
        )
        parts += ["| decisions | change | now decided by |", "|---:|---|---|"]
        parts += _listed(
            f"| {count} | {change} | {code(name) if name else 'no policy'} |"
            for (change, name), count in replay.policies.most_common()
        )
    return parts


def _cases(side: Side) -> list[str]:
    parts = []
    if side.failed:
        parts += ["### Cases that fail", "", *_listed(f"- {code(one.failure)}" for one in side.failed)]
    missing = [
        f"| {code(policy.policy.id)} | {code(one.text)} | {_unseen(one)} |"
        for policy in side.coverage.policies
        for one in policy.conditions
        if not one.full
    ]
    if missing:
        parts += ["### Conditions that no case sees both ways", "", "| policy | condition | never |", "|---|---|---|"]
        parts += _listed(missing)
    return parts


def _unseen(one: ConditionCover) -> str:
    return "false" if one.true else "true" if one.false else "either"


def _findings(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return []
    parts = ["### Findings", "", "| level | where | what | remedy |", "|---|---|---|---|"]
    parts += _listed(
        f"| {one.level} | {code(f'{one.file}:{one.line}')} | {code(one.message)} | {code(one.remedy)} |"
        for one in findings
    )
    return parts


def _listed(rows: Iterable[str]) -> list[str]:
    every = list(rows)
    more = len(every) - MAX_ROWS
    return [*every[:MAX_ROWS], "", *([f"…and {more} more.", ""] if more > 0 else [])]
