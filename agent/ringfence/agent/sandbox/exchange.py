"""What the agent and a worker hand each other in memory files: the job going in, the result coming out.

Sans-IO. The job file is sealed before the worker starts. The result file has a fixed size, so a guest's output is
bounded by the file itself; the agent reads it only after the worker has been reaped, and trusts nothing in it.

Result file: u64 peak guest memory, u32 phase, u32 report length, the report (JSON), and from `OUTPUT_OFFSET` on the
guest's standard output.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgspec

from ringfence.agent import errors
from ringfence.agent.errors import WORKER_LOST, SandboxError
from ringfence.agent.sandbox.port import GuestJob
from ringfence.errors import Code

OUTPUT_OFFSET = 4096
PHASE_STARTING, PHASE_COMPILING, PHASE_RUNNING = range(3)

_JOB = struct.Struct("<QIQQQ")
_RESULT = struct.Struct("<QII")
_MAX_REPORT = OUTPUT_OFFSET - _RESULT.size
_MAX_TEXT = 480

CODES: dict[str, Code] = {code.name: code for code in vars(errors).values() if isinstance(code, Code)}


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """A job as its worker sees it; `module` and `input` are views of the job file."""

    memory_bytes: int
    deadline_ms: int
    output_bytes: int
    module: memoryview
    input: memoryview


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a worker says its guest ended: no code and the length of its output, or a code and what it means."""

    output_bytes: int = 0
    code: str = ""
    message: str = ""
    field: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ResultHead:
    """The fixed part of a result file; `report` is None when the worker ended without one."""

    peak_memory_bytes: int
    phase: int
    report: Report | None


def encode_job(job: GuestJob) -> bytes:
    """The bytes of a job file."""
    limits = job.limits
    head = _JOB.pack(limits.memory_bytes, limits.deadline_ms, limits.output_bytes, len(job.module), len(job.input))
    return head + job.module + job.input


def decode_job(data: memoryview) -> WorkerJob:
    """The job in a job file, which only the agent can have written."""
    memory, deadline, output, module_length, input_length = _JOB.unpack_from(data)
    middle = _JOB.size + module_length
    return WorkerJob(memory, deadline, output, data[_JOB.size : middle], data[middle : middle + input_length])


def encode_report(report: Report) -> bytes:
    """The report's bytes, with what is too long for the result file's head cut off."""
    return msgspec.json.encode(
        msgspec.structs.replace(report, message=readable(report.message), hint=readable(report.hint))
    )


def encode_head(peak_memory_bytes: int, phase: int, report: bytes = b"") -> bytes:
    """The first bytes of a result file."""
    return _RESULT.pack(peak_memory_bytes, phase, len(report)) + report


def decode_head(data: bytes) -> ResultHead:
    """The head of a result file that a worker may have written while it was hostile.

    Raises `SandboxError` (`sandbox.worker_lost`) when it holds no report that this agent understands.
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
    if report.code and report.code not in CODES:
        raise _unreadable()
    return ResultHead(peak, phase, report)


def readable(text: str) -> str:
    """`text` as it may stand in a message: printable ASCII, at most 480 characters."""
    return "".join(character if " " <= character <= "~" else " " for character in text[:_MAX_TEXT])


def _unreadable() -> SandboxError:
    return SandboxError(WORKER_LOST, "The worker left a result that cannot be read.")
