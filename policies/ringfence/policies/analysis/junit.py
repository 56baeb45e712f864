"""How the cases of a bundle went, as JUnit XML, which every CI system reads."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from ringfence.policies.cases import CaseResult


def junit(name: str, results: Sequence[CaseResult]) -> str:
    """One test suite with one test case for each result."""
    failures = sum(bool(result.failure) for result in results)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name={_attribute(name)} tests="{len(results)}" failures="{failures}" errors="0" skipped="0">',
    ]
    for result in results:
        head = f"  <testcase classname={_attribute(result.case.file)} name={_attribute(result.case.name)}"
        if result.failure:
            lines += [f"{head}>", f"    <failure message={_attribute(result.failure)}/>", "  </testcase>"]
        else:
            lines.append(f"{head}/>")
    return "\n".join([*lines, "</testsuite>", ""])


def _attribute(text: str) -> str:
    # XML 1.0 has no form at all for most control characters (section 2.2).
    return quoteattr("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text))
