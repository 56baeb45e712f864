"""What a module came to: what the checks of its level found, and how that travels from the process that checked it.

The agent reads these. It loads neither the checks nor the runtime.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from ringfence.agent.errors import MODULE_INVALID, WORKER_LOST, SandboxError
from ringfence.agent.sandbox.exchange import Refusal
from ringfence.agent.sandbox.levels import Level

MAX_VERDICT: Final = 1024 * 1024
"""Bytes of a verdict as it travels."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Text = Annotated[str, msgspec.Meta(max_length=1024)]

Entry = Literal["command", "reactor", ""]


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that a check found: whether it refuses the module, why, and where in the module's bytes."""

    check: _Text
    refused: bool
    reason: _Text
    offset: _Count
    threat: _Text
    hint: _Text


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a level's checks found.

    `entry` says how the module is run, "" when it cannot be; `functions` how many it defines. The last three are worked
    out at levels `high` and `quantum` alone: whether any function may call itself, how many frames deep calls go at
    most if none does, and how many loops repeat without a checkpoint.
    """

    level: Level
    findings: tuple[Finding, ...]
    imports: tuple[tuple[_Text, _Text], ...] = ()
    entry: Entry = ""
    functions: _Count = 0
    recursive: bool = False
    max_call_depth: _Count | None = None
    loops_without_checkpoint: _Count = 0

    @property
    def refused(self) -> bool:
        """Whether any check refused the module."""
        return any(finding.refused for finding in self.findings)


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a module came to: what the checks found, and why it is refused, if it is."""

    report: Report | None
    refusal: Refusal | None


def too_much() -> SandboxError:
    """What is said of a module that no compiler can take in within its limits."""
    return SandboxError(
        MODULE_INVALID,
        "Compiling the module took more than the compiler may have.",
        field="module",
        hint="Send a smaller module, or split its largest functions.",
    )


def encode_report(report: Report) -> bytes:
    """The report as JSON."""
    return msgspec.json.encode(report)


def decode_report(data: bytes) -> Report:
    """The report in `data`. Raises `SandboxError` (`sandbox.worker_lost`): what wrote it is not well."""
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SandboxError(
            WORKER_LOST, "The process that checks modules left a report that cannot be read.", field="module"
        ) from error
