"""The values of a script: how one is passed to a function, and whether a result is the one expected.

A number is its bits, written as a decimal. Source: wabt, docs/wast2json.md, as `wasm-tools json-from-wast` writes it.
"""

from __future__ import annotations

import ctypes
from typing import Final, cast

import msgspec
from wasmtime import _ffi as wasmtime_c

from tools.conformance.runtime import Value

_KINDS: Final = {
    "i32": wasmtime_c.WASMTIME_I32,
    "i64": wasmtime_c.WASMTIME_I64,
    "f32": wasmtime_c.WASMTIME_F32,
    "f64": wasmtime_c.WASMTIME_F64,
    "v128": wasmtime_c.WASMTIME_V128,
    "funcref": wasmtime_c.WASMTIME_FUNCREF,
}
_WIDTHS: Final = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "f32": 4, "f64": 8}
# Which bits a NaN has, apart from its sign: exponent and first bit of the payload (core 3.0, section 2.2.3).
_QUIET: Final = {4: 0x7FC0_0000, 8: 0x7FF8_0000_0000_0000}
# What the null reference to a function is expected as.
_NULLS: Final = ("refnull", "nullfuncref")


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value as a script has it; `values` are the alternatives of type `either`."""

    type: str
    value: str | list[str] | None = None
    lane_type: str = ""
    values: tuple[Given, ...] = ()


def passed(given: Given) -> Value:
    """The value as an argument. Raises `ValueError` for a type that no level offers."""
    if given.type not in _KINDS:
        raise ValueError(f"arguments of type {given.type} are not known")
    result = Value()
    result.kind = _KINDS[given.type]
    if given.type == "funcref":
        if given.value != "null":
            raise ValueError("a function cannot be given as an argument")
        return result
    data = b"".join(int(lane).to_bytes(width, "little", signed=int(lane) < 0) for lane, width in _lanes(given))
    ctypes.memmove(ctypes.byref(result.of), data, len(data))
    return result


def matches(expected: Given, actual: Value) -> bool:
    """Whether a result is the one expected."""
    if expected.type == "either":
        return any(matches(one, actual) for one in expected.values)
    kind = _kind(actual)
    if kind == "funcref":
        null = not actual.of.funcref.store_id
        return null if expected.type in _NULLS or expected.value == "null" else expected.type == kind and not null
    if kind != expected.type:
        return False
    bits = ctypes.string_at(ctypes.addressof(actual.of), 16)
    at = 0
    for lane, width in _lanes(expected):
        if not _lane_matches(lane, width, int.from_bytes(bits[at : at + width], "little")):
            return False
        at += width
    return True


def _lane_matches(expected: str, width: int, actual: int) -> bool:
    unsigned = (1 << 8 * width) - 1
    if not expected.startswith("nan:"):
        return actual == int(expected) & unsigned
    quiet = _QUIET[width]
    magnitude = actual & unsigned >> 1
    return magnitude == quiet if expected == "nan:canonical" else magnitude & quiet == quiet


def _lanes(given: Given) -> list[tuple[str, int]]:
    """Every number of a value, with its width in bytes."""
    numbers = given.value if isinstance(given.value, list) else [str(given.value)]
    return [(number, _WIDTHS[given.lane_type or given.type]) for number in numbers]


def _kind(value: Value) -> str:
    """The type of a value by its name; "" for one that no level offers."""
    number = cast(int, value.kind)  # ctypes turns the declared c_uint8 into an int
    return next((name for name, kind in _KINDS.items() if kind.value == number), "")
