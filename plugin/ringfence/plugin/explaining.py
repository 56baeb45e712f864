"""A recorded decision, as a person needs it: what was asked, what each stage said, why, and what would help. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ringfence.audit.kinds import Decision, Fact
from ringfence.audit.selection import iso_time

_HELP: Final = {
    "parse": "The request does not have the form of a signed request or of a browser's session.",
    "session": "The session is not live, or its client is not pinned any more.",
    "signature": "Whoever sent it did not prove to belong to the session.",
    "integrity": "The request is not the one that was signed, or it was accepted before.",
    "identity": "Who it is could not be established.",
    "device_trust": "The host behind the gateway was not in the state that the session needs.",
    "risk": "What was seen of the principal and its source lately was too unusual.",
    "policy": "The policies did not permit it.",
    "audit": "The decision could not be recorded, and what cannot be recorded is denied.",
}
_SUBJECTS: Final = {
    "session": "open a session",
    "request": "a request",
    "factor": "add identity factors",
    "question": "a question",
}
_UNITS: Final = {"_bytes": "bytes", "_ms": "ms", "_s": "s"}


def explain(record: Decision, time_ns: int, *, shown: Callable[[str], str] = lambda text: text) -> list[str]:
    """The explanation in lines. `shown` makes text from elsewhere safe for where it is printed."""
    subject = record.action or _SUBJECTS[record.pipeline]
    lines = [
        f"{_verdict(record)}: {shown(subject)} on {shown(record.resource or 'this gateway')}",
        f"  decision   {record.decision_id}",
        f"  when       {iso_time(time_ns)}, decided in {record.duration_us} us",
        f"  who        {shown(record.principal) or 'nobody that was authenticated'}",
        f"  from       {shown(record.source) or 'unknown'}",
    ]
    if record.session:
        lines.append(f"  session    {shown(record.session)}")
    lines += ["", "Stages"]
    lines += [
        f"  {stage.verdict:<6} {stage.name:<13} {stage.micros:>6} us  {shown(stage.code)}".rstrip()
        for stage in record.stages
    ]
    lines += _why(record, shown)
    if record.asked is not None:
        lines += ["", "What the policies were asked", f"  groups: {shown(', '.join(record.asked.groups)) or 'none'}"]
        lines += [f"  {name}: {shown(_fact(name, value))}" for name, value in sorted(record.asked.context.items())]
    lines += ["", "Decided by", f"  policies       {shown(', '.join(record.policies)) or 'none of them'}"]
    lines += [
        f"  bundle         {record.bundle_digest or 'none'}",
        f"  attestation    {record.attestation_digest or 'none'}",
    ]
    if record.grant_id:
        lines.append(f"  grant          {record.grant_id}")
    return lines


def _verdict(record: Decision) -> str:
    return {"allow": "ALLOWED", "deny": "DENIED", "challenge": "ASKED FOR MORE"}[record.verdict]


def _why(record: Decision, shown: Callable[[str], str]) -> list[str]:
    lines: list[str] = []
    if record.verdict != "allow" and record.stages:
        last = record.stages[-1].name
        lines += ["", "Why", f"  {_HELP.get(last, 'A stage refused it.')} The code is {shown(record.code)}."]
    if record.missing:
        lines.append(f"  These identity factors would help: {shown(', '.join(record.missing))}.")
    if record.reasons:
        lines.append(f"  Risk: {shown(', '.join(record.reasons))}.")
    return lines


def _fact(name: str, value: Fact) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
        return f"{value:,} {unit}".rstrip()
    return ", ".join(value) or "none" if isinstance(value, tuple) else value or "none"
