"""Checks a module by security level before it runs: what is refused, what is reported, and why.

Pure: bytes in, a report out. No check runs anything of the module or needs the runtime.
"""

from ringfence.agent.sandbox.validation.checking import refusal, validate
from ringfence.agent.sandbox.validation.subject import Check
from ringfence.agent.sandbox.validation.table import CHECKS, checks
from ringfence.agent.sandbox.verdicts import Entry, Finding, Report, decode_report, encode_report

__all__ = [
    "CHECKS",
    "Check",
    "Entry",
    "Finding",
    "Report",
    "checks",
    "decode_report",
    "encode_report",
    "refusal",
    "validate",
]
