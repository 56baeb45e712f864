"""Validates what a guest left as its output: is it of the type that the job declared, and are its numbers numbers?

The size is bounded before, and the digest is in the receipt. Pure; time and memory are bounded by the output's size.
"""

from __future__ import annotations

import codecs
from typing import Final

import msgspec

from ringfence.agent.errors import RESULT_INVALID, SandboxError
from ringfence.agent.sandbox.levels import Level, ResultType

_SIZES: Final = {ResultType.I32: 4, ResultType.I64: 8, ResultType.F32: 4, ResultType.F64: 8}
_FLOATS: Final = (ResultType.F32, ResultType.F64)
# Each piece is checked while no other thread of the agent runs, the one that keeps every job's deadline among them.
_CHUNK: Final = 256 * 1024
MAX_JSON: Final = 1024 * 1024
"""The longest JSON output in bytes. It can only be checked in one piece; what is longer can be declared text."""


def check_result(output: bytes, kind: ResultType, level: Level) -> None:
    """Raise `SandboxError` (`sandbox.result_invalid`) unless `output` is a `kind`.

    Text is UTF-8, JSON is RFC 8259 in UTF-8 and at most `MAX_JSON` bytes, and numbers are one or more,
    little-endian and without padding. At levels `high` and `quantum` none of them may be a NaN; infinities are numbers.
    """
    match kind:
        case ResultType.BYTES:
            return
        case ResultType.TEXT:
            _check_text(output, kind)
        case ResultType.JSON:
            _check_json(output)
        case _:
            _check_numbers(output, kind, level)


def _check_text(output: bytes, kind: ResultType) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(output)
    try:
        for start in range(0, len(output), _CHUNK):
            decoder.decode(view[start : start + _CHUNK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _invalid(kind, "it is not UTF-8") from error


def _check_json(output: bytes) -> None:
    if len(output) > MAX_JSON:
        raise _invalid(ResultType.JSON, f"it has {len(output)} bytes, and JSON is checked up to {MAX_JSON}")
    _check_text(output, ResultType.JSON)
    try:
        # Raw checks the text and builds nothing from it.
        msgspec.json.decode(output, type=msgspec.Raw)
    except msgspec.MsgspecError as error:
        raise _invalid(ResultType.JSON, f"it does not parse ({error})") from error
    except RecursionError as error:
        raise _invalid(ResultType.JSON, "it is nested too deeply") from error


def _check_numbers(output: bytes, kind: ResultType, level: Level) -> None:
    size = _SIZES[kind]
    if not output or len(output) % size:
        raise _invalid(kind, f"{len(output)} bytes are not one or more numbers of {size} bytes")
    if kind in _FLOATS and level.locked and _has_nan(output, kind):
        raise _invalid(kind, f"it holds a NaN, which level {level} does not take")


def _has_nan(output: bytes, kind: ResultType) -> bool:
    # Only a NaN differs from itself, and views are compared number by number at the speed of C. Every machine that the
    # runtime is published for is little-endian, as the numbers are.
    view = memoryview(output).cast("f" if kind is ResultType.F32 else "d")
    step = _CHUNK // view.itemsize
    return any((piece := view[start : start + step]) != piece for start in range(0, len(view), step))


def _invalid(kind: ResultType, why: str) -> SandboxError:
    return SandboxError(
        RESULT_INVALID,
        f"The output is not the {kind} that the job declares: {why}.",
        field="result",
        hint="Declare what the guest really prints, or mend the guest.",
    )
