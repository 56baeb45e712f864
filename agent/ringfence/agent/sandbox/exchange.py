"""What a sandbox's processes leave for the agent in memory files: verdicts, reports and output.

Sans-IO. A result file has a fixed size, so a guest's output is bounded by the file itself; the agent reads it only
after the worker has been reaped, and trusts nothing in it.

Result file: u64 peak guest memory, u32 phase, u32 report length, the report (JSON), and from `OUTPUT_OFFSET` on the
guest's standard output.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from ringfence.agent import errors
from ringfence.agent.errors import WORKER_LOST, SandboxError
from ringfence.agent.sandbox.port import GuestError, Usage
from ringfence.errors import Code

OUTPUT_OFFSET = 4096
PHASE_STARTING, PHASE_RUNNING = range(2)
LOST_HINT: Final = "Send the job again; if that does not help, run `ringfence doctor` on its host."

_RESULT = struct.Struct("<QII")
_MAX_REPORT = OUTPUT_OFFSET - _RESULT.size
_MAX_TEXT = 480

CODES: dict[str, Code] = {code.name: code for code in vars(errors).values() if isinstance(code, Code)}
# What a guest, or its devices, can come to inside its worker. Everything else is the kernel's to say, or the agent's: a
# worker that claims it has been taken over, or is broken.
WORKER_CODES: Final = frozenset(
    code.name
    for code in (
        errors.GUEST_TRAP,
        errors.GUEST_EXIT,
        errors.GUEST_ARGUMENT,
        errors.MEMORY_LIMIT,
        errors.OUTPUT_LIMIT,
        errors.INPUT_TOO_LARGE,
        errors.MODULE_INVALID,
        errors.BROKER_PROTOCOL,
        errors.DEVICE_FAULT,
        errors.DEVICE_ARGUMENT,
        errors.KERNEL_UNKNOWN,
        errors.QUANTUM_DISABLED,
        errors.QUANTUM_ARGUMENT,
    )
)
# What checking and compiling a module can come to.
COMPILER_CODES: Final = frozenset(
    code.name
    for code in (
        errors.MODULE_INVALID,
        errors.MODULE_TOO_LARGE,
        errors.MODULE_REFUSED,
        errors.COMPONENT_GIVEN,
        errors.ENTRY_POINT_MISSING,
        errors.ENTRY_POINT_TYPE,
        errors.IMPORT_UNKNOWN,
        errors.MEMORY_LIMIT,
        errors.QUANTUM_DISABLED,
        errors.QUANTUM_ARGUMENT,
    )
)


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An error as it travels between processes; whoever reads it trusts none of its text."""

    code: str
    message: str
    field: str = ""
    hint: str = ""

    @classmethod
    def of(cls, error: SandboxError) -> Self:
        """`error`, with what is too long for a result file's head cut off."""
        return cls(error.code.name, readable(error.message), readable(error.field), readable(error.hint))

    def error(self, usage: Usage) -> GuestError:
        """What the agent raises for it; `code` is one of `CODES`."""
        message, hint, field = map(readable, (self.message, self.hint, self.field))
        return GuestError(CODES[self.code], message, usage, field=field, hint=hint)


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a worker says its guest ended: the length of its output, or why there is none."""

    output_bytes: int = 0
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class ResultHead:
    """The fixed part of a result file; `report` is None when the worker ended without one."""

    peak_memory_bytes: int
    phase: int
    report: Report | None


def encode_head(peak_memory_bytes: int, phase: int, report: Report | None = None) -> bytes:
    """The first bytes of a result file."""
    encoded = b"" if report is None else msgspec.json.encode(report)
    return _RESULT.pack(peak_memory_bytes, phase, len(encoded)) + encoded


def decode_head(data: bytes) -> ResultHead:
    """The head of a result file that a worker may have written while it was hostile.

    Raises `SandboxError` (`sandbox.worker_lost`) when it holds no report that a worker can come to.
    """
    try:
        peak, phase, length = _RESULT.unpack_from(data)
        if not length:
            return ResultHead(peak, phase, None)
        if length > _MAX_REPORT:
            raise _unreadable()
        report = msgspec.json.decode(data[_RESULT.size : _RESULT.size + length], type=Report)
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable() from error
    if report.refusal is not None and report.refusal.code not in WORKER_CODES:
        raise _unreadable()
    return ResultHead(peak, phase, report)


def readable(text: str) -> str:
    """`text` as it may stand in a message: printable ASCII, at most 480 characters."""
    return "".join(character if " " <= character <= "~" else " " for character in text[:_MAX_TEXT])


def _unreadable() -> SandboxError:
    return SandboxError(WORKER_LOST, "The worker left a result that cannot be true.", field="module", hint=LOST_HINT)
