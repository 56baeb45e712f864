"""What a check of a bundle may find: a rule, how bad it is, where, and what to do. SARIF for code review."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.policies.errors import PolicyError


class Level(enum.StrEnum):
    """How bad a finding is, in SARIF's words (SARIF 2.1.0, section 3.27.10)."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


RULES = {
    "load": "The bundle cannot be loaded.",
    "duplicate-id": "Two policies have one id, and decision records name policies by id.",
    "optional-attribute": "A policy reads an attribute that may be missing, which skips a forbid.",
    "never-matches": "No request matches the policy.",
    "may-err": "Some request makes the policy's evaluation an error, which denies.",
    "not-understood": "Whether the policy can match was not found out.",
    "unused-entity": "An entity type or an action group of the schema is used nowhere.",
    "unknown-group": "A case names a group that no policy knows.",
    "untested-group": "A policy names a group that no case is in.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `line` is counted from one, and 0 where the file as a whole is meant."""

    rule: str
    level: Level
    file: str
    line: int
    message: str
    remedy: str

    def document(self) -> dict[str, object]:
        return {
            "rule": self.rule,
            "level": self.level.value,
            "file": self.file,
            "line": self.line,
            "message": self.message,
            "remedy": self.remedy,
        }


def from_error(error: PolicyError) -> Finding:
    """The finding of a bundle that does not load."""
    file, colon, line = error.field.rpartition(":")
    placed = bool(colon) and line.isdecimal()
    rule = "duplicate-id" if error.code.name == "policy.duplicate_id" else "load"
    where, number = (file, int(line)) if placed else (error.field, 0)
    return Finding(rule, Level.ERROR, where, number, f"{error.code}: {error.message}", error.hint)


def sarif(findings: Sequence[Finding], version: str, prefix: str = "") -> dict[str, object]:
    """Findings as a SARIF 2.1.0 log; `prefix` is the bundle's folder in the repository, for the paths."""
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "ringfence policy check",
                        "version": version,
                        "rules": [{"id": rule, "shortDescription": {"text": text}} for rule, text in RULES.items()],
                    }
                },
                "results": [_result(finding, prefix) for finding in findings],
            }
        ],
    }


def _result(finding: Finding, prefix: str) -> dict[str, object]:
    return {
        "ruleId": finding.rule,
        "level": finding.level.value,
        "message": {"text": f"{finding.message} {finding.remedy}".strip()},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": f"{prefix}{finding.file}"},
                    "region": {"startLine": max(1, finding.line)},
                }
            }
        ],
    }
