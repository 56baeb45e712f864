"""Runs the checks of a level over a module, and says what they amount to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from ringfence.agent.errors import MODULE_REFUSED, SandboxError
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import MAX_MODULE_BYTES
from ringfence.agent.sandbox.validation import control, quantum, structure
from ringfence.agent.sandbox.validation.calls import NO_CALLS, call_graph
from ringfence.agent.sandbox.validation.subject import Check, Found, Subject
from ringfence.agent.sandbox.validation.table import CHECKS, FORMAT, LAYER, SIZE, SPECIFICATION, checks
from ringfence.agent.sandbox.verdicts import Finding, Report
from ringfence.agent.sandbox.wasm import MalformedModule, OversizedModule, decode_module, read_flow
from ringfence.terminal import printable

MAX_FINDINGS: Final = 16
"""How many findings of one check a report has; one more says how many are left out."""

_MAGIC: Final = b"\0asm"
_VERSION: Final = b"\1\0\0\0"
_LONGEST: Final = 480


class _NoSubjectError(Exception):
    """There is nothing to check, for the reason that a check found."""

    def __init__(self, check: str, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.check = check
        self.found = Found(True, reason, offset)


def validate(
    code: bytes,
    level: Level,
    *,
    memory_bytes: int,
    qubits: int,
    specification: Callable[[bytes], str] | None = None,
) -> Report:
    """What the checks of `level` find in `code` for a job of so many bytes of memory and so many qubits.

    `specification` is the runtime's own validation: "", or what it says is wrong. Without it `code` must have passed
    that already. Never raises: bytes that are no module are a finding too.
    """
    try:
        subject = _subject(code, level, memory_bytes, qubits, specification)
    except _NoSubjectError as error:
        return Report(level, (_finding(CHECKS[error.check], error.found),))
    module = subject.module
    return Report(
        level=level,
        findings=tuple(_findings(subject, checks(level))),
        imports=tuple((structure.shown(one.module), structure.shown(one.name)) for one in module.imports),
        entry=structure.entry(subject),
        functions=len(module.bodies),
        recursive=subject.calls.cycle is not None,
        max_call_depth=subject.calls.depth if level.locked and subject.calls.cycle is None else None,
        loops_without_checkpoint=len(control.loops_without_checkpoint(subject)),
    )


def refusal(report: Report) -> SandboxError | None:
    """The error that a report amounts to: that of the first finding that refuses the module, None when none does."""
    finding = next((one for one in report.findings if one.refused), None)
    if finding is None:
        return None
    check = CHECKS.get(finding.check)
    message = f"{finding.reason.removesuffix('.')} (check {finding.check}, offset {finding.offset:#x})."
    code = check.code if check is not None and check.code is not None else MODULE_REFUSED
    return SandboxError(code, message, field="module", hint=finding.hint)


def _subject(
    code: bytes, level: Level, memory_bytes: int, qubits: int, specification: Callable[[bytes], str] | None
) -> Subject:
    """The module, decoded as far as the level's checks need it."""
    if len(code) > MAX_MODULE_BYTES:
        raise _NoSubjectError(SIZE, f"The module has {len(code)} bytes, more than {MAX_MODULE_BYTES}.", len(code))
    if not code.startswith(_MAGIC):
        raise _NoSubjectError(FORMAT, "The module does not begin with the bytes of WebAssembly.", 0)
    if code[6:8] == b"\1\0":
        raise _NoSubjectError(LAYER, "This is a WebAssembly component, and a core module is due.", 4)
    if not code.startswith(_MAGIC + _VERSION):
        raise _NoSubjectError(FORMAT, "The module is not of version 1 of the binary format.", 4)
    complaint = specification(code) if specification is not None else ""
    if complaint:
        raise _specified(complaint)
    try:
        module = decode_module(code)
        flows = tuple([read_flow(code, body) for body in module.bodies]) if level.locked else ()
        circuit = quantum.quantum_calls(code, module, flows) if level is Level.QUANTUM else ()
    except OversizedModule as error:
        raise _NoSubjectError(SIZE, f"The module has {error.what}.", error.offset) from error
    except MalformedModule as error:
        raise _NoSubjectError(SPECIFICATION, f"The module does not decode: {error.what}.", error.offset) from error
    calls = call_graph(module, flows) if level.locked else NO_CALLS
    return Subject(code, module, memory_bytes, qubits, flows, calls, circuit)


def _specified(complaint: str) -> _NoSubjectError:
    """What the runtime said, without the place that stands in it already."""
    place = re.search(r"\(?at offset (0x[0-9a-f]+|[0-9]+)\)?", complaint)
    offset = int(place[1], 0) if place and len(place[1]) < 16 else 0
    said = " ".join(complaint.replace(place[0], " ").split()) if place else complaint
    return _NoSubjectError(SPECIFICATION, f"The module is not valid: {printable(said[:_LONGEST]).rstrip('.')}.", offset)


def _findings(subject: Subject, applied: Iterable[Check]) -> Iterator[Finding]:
    for check in applied:
        if check.find is None:
            continue
        found = check.find(subject)
        yield from (_finding(check, one) for one in islice(found, MAX_FINDINGS))
        more = next(found, None)
        if more is not None:
            count = 1 + sum(1 for _ in found)
            reason = f"The check found {count} more of which this is the first: {more.reason}"
            yield _finding(check, more._replace(reason=reason))


def _finding(check: Check, found: Found) -> Finding:
    reason = found.reason if len(found.reason) <= _LONGEST else f"{found.reason[:_LONGEST]}..."
    return Finding(check.name, found.refused, reason, found.offset, check.threat, check.hint)
