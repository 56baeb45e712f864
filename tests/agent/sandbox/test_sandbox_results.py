"""The validation of a guest's output, and the quantities that the command line reads."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.errors import RESULT_INVALID, SandboxError
from ringfence.agent.sandbox import quantities
from ringfence.agent.sandbox.levels import Level, ResultType
from ringfence.agent.sandbox.results import check_result

NAN, INFINITY = math.nan, math.inf


def refused(output: bytes, kind: ResultType, level: Level = Level.HIGH) -> str:
    """Why an output is refused; "" when it is not."""
    try:
        check_result(output, kind, level)
    except SandboxError as error:
        return error.message
    return ""


def test_a_refusal_names_the_result() -> None:
    with pytest.raises(SandboxError) as caught:
        check_result(b"", ResultType.I32, Level.LOW)
    assert (caught.value.code, caught.value.field) == (RESULT_INVALID, "result")


@pytest.mark.parametrize("level", list(Level))
def test_bytes_are_anything(level: Level) -> None:
    for output in (b"", b"\xff\0", bytes(100_000)):
        assert refused(output, ResultType.BYTES, level) == ""


@pytest.mark.parametrize("output", [b"\xff", b"a\xc3", b"\xed\xa0\x80", "ü".encode() * 600_000 + b"\xc3"])
def test_text_is_utf_8(output: bytes) -> None:
    assert "not UTF-8" in refused(output, ResultType.TEXT)
    assert "not UTF-8" in refused(b'"' + output[-100:] + b'"', ResultType.JSON)
    assert refused(output.decode(errors="ignore").encode(), ResultType.TEXT) == ""


@pytest.mark.parametrize("output", [b"{}", b' [1, "\\u00e4"]\n', b"null", b"-0.5e3", '{"ä": [true]}'.encode()])
def test_json_is_one_value(output: bytes) -> None:
    assert refused(output, ResultType.JSON) == ""


@pytest.mark.parametrize(
    "output", [b"", b"{", b"NaN", b"[1] 2", b"{'a': 1}", b"01", b'"\x01"', b"[1,]", b"[" * 100_000]
)
def test_what_is_not_json_is_refused(output: bytes) -> None:
    assert refused(output, ResultType.JSON)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=20)
)
def test_whatever_json_writes_is_json(value: object) -> None:
    assert refused(json.dumps(value).encode(), ResultType.JSON) == ""


@pytest.mark.parametrize(
    ("kind", "size"), [(ResultType.I32, 4), (ResultType.I64, 8), (ResultType.F32, 4), (ResultType.F64, 8)]
)
def test_numbers_are_whole(kind: ResultType, size: int) -> None:
    assert refused(bytes(size), kind) == ""
    assert refused(bytes(3 * size), kind) == ""
    for length in (0, 1, size - 1, size + 1, 2 * size - 1):
        assert f"{length} bytes" in refused(bytes(length), kind)


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.sampled_from(list(Level)))
def test_a_nan_is_refused_at_locked_levels(values: list[float], level: Level) -> None:
    wanted = level.locked and any(map(math.isnan, values))
    assert bool(refused(struct.pack(f"<{len(values)}f", *values), ResultType.F32, level)) == wanted
    assert bool(refused(struct.pack(f"<{len(values)}d", *values), ResultType.F64, level)) == wanted


@pytest.mark.parametrize("pattern", ["010000000000f07f", "ffffffffffffffff", "000000000000f8ff"])
def test_every_kind_of_nan_is_one(pattern: str) -> None:
    assert "NaN" in refused(bytes(8) + bytes.fromhex(pattern), ResultType.F64)
    assert refused(bytes(8) + bytes.fromhex(pattern), ResultType.I64) == ""


def test_infinities_are_numbers() -> None:
    assert refused(struct.pack("<2d", INFINITY, -INFINITY), ResultType.F64) == ""
    assert refused(struct.pack("<d", NAN), ResultType.F64, Level.MEDIUM) == ""


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("4096", 4096), ("1B", 1), ("64MiB", 64 << 20), ("1GB", 10**9), ("3kB", 3000)]
)
def test_sizes(text: str, value: int) -> None:
    assert quantities.size(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("0s", 0), ("500ms", 500), ("2s", 2000), ("5min", 300_000), ("1h", 3_600_000)]
)
def test_durations(text: str, value: int) -> None:
    assert quantities.duration_ms(text) == value


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "+1", "1.5MiB", "1 MiB", "64mib", "64Mb", "1e3", "٣", "1" * 16, "1MiB\n"]
)
def test_a_size_that_could_mean_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as 64MiB"):
        quantities.size(text)


@pytest.mark.parametrize("text", ["", "2", "2 s", "-2s", "2S", "1.5s", "2sec"])
def test_a_duration_without_its_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 2s"):
        quantities.duration_ms(text)
