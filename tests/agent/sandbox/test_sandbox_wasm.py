"""The decoder of WebAssembly: it agrees with the runtime, knows where things stand, and is total."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.errors import MODULE_INVALID, MODULE_TOO_LARGE
from ringfence.agent.sandbox.wasm import (
    Body,
    FunctionType,
    Kind,
    MalformedModule,
    OversizedModule,
    decode_module,
    instructions,
    read_flow,
)

HEAD = b"\0asm\1\0\0\0"
CATALOGUE = Path(__file__).resolve().parents[3] / "agent" / "ringfence" / "agent" / "gpu" / "catalogue.wasm"

EVERYTHING = """(module
  (type $binary (func (param i32 i64) (result f32 f64)))
  (type $plain (func))
  (import "a" "f" (func $f (type $binary)))
  (import "a" "g" (global $g i32))
  (import "a" "t" (table 1 2 funcref))
  (import "a" "m" (memory 1 9))
  (table $own (export "own") 3 funcref)
  (global $mutable (mut i64) (i64.const -1))
  (global $seven (export "seven") i32 (i32.const 7))
  (export "f" (func $f))
  (start $start)
  (elem (table $own) (i32.const 1) func $start $f)
  (elem declare func $start)
  (elem $passive funcref (ref.func $start) (ref.null func))
  (data (i32.const 65530) "abc")
  (data $later "defg")
  (func $start (local i32 i64 i64)
    (block (loop (br_if 1 (i32.const 1)) (br 0)))
    (if (i32.const 1) (then (call $start)) (else (drop (i32.const -5))))
    (call_indirect $own (type $plain) (i32.const 0))
    (memory.init $later (i32.const 0) (i32.const 0) (i32.const 4))
    (table.init $own $passive (i32.const 0) (i32.const 0) (i32.const 2))
    (drop (ref.func $start))
    (br_table 0 0 0 (i32.const 0))))"""

VECTOR = "(v128.const i64x2 1 2)"
# One instruction of every shape of immediates that is not above.
SHAPES = "".join(
    [
        *(f"(drop (v128.load{size}_lane 0 (i32.const 0) {VECTOR}))" for size in (8, 16, 32, 64)),
        *(f"(v128.store{size}_lane 0 (i32.const 0) {VECTOR})" for size in (8, 16, 32, 64)),
        *(f"(drop (v128.load{size}_zero (i32.const 0)))" for size in (32, 64)),
        *(f"(drop (v128.load{size}_splat offset=300 (i32.const 0)))" for size in (8, 16, 32, 64)),
        *(f"(drop ({shape}.extract_lane{sign} 1 {VECTOR}))" for shape in ("i8x16", "i16x8") for sign in ("_s", "_u")),
        *(f"(drop ({shape}.extract_lane 1 {VECTOR}))" for shape in ("i32x4", "i64x2", "f32x4", "f64x2")),
        *(f"(drop (i{size}.trunc_sat_f{of}_u (f{of}.const 1)))" for size in (32, 64) for of in (32, 64)),
        *(f"(drop (i{size}.load offset=70000 (i32.const 0)))" for size in (32, 64)),
        f"(drop (f64x2.replace_lane 1 {VECTOR} (f64.const -1)))(drop (v128.any_true {VECTOR}))",
        f"(drop (i8x16.swizzle {VECTOR} {VECTOR}))(drop (f64x2.convert_low_i32x4_u {VECTOR}))",
        "(memory.copy (i32.const 0) (i32.const 0) (i32.const 0))",
        "(memory.fill (i32.const 0) (i32.const 0) (i32.const 0))",
        "(drop (memory.grow (memory.size)))(data.drop 0)(elem.drop 0)(drop (f32.const 1))(drop (i64.const -129))",
        "(table.copy 0 0 (i32.const 0) (i32.const 0) (i32.const 0))(drop (table.size 0))",
        "(table.fill 0 (i32.const 0) (ref.null func) (i32.const 0))(drop (table.grow 0 (ref.null func) (i32.const 0)))",
        "(drop (select (result funcref) (ref.null func) (table.get 0 (i32.const 0)) (i32.const 1)))",
        "(drop (ref.is_null (ref.null extern)))(table.set 0 (i32.const 0) (ref.null func))",
    ]
)


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def leb(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb(len(content)) + content


def wide_engine() -> wasmtime.Engine:
    """The runtime with all of WebAssembly 3.0."""
    config = wasmtime.Config()
    for feature in ("gc", "exceptions", "function_references", "memory64", "tail_call", "relaxed_simd", "multi_memory"):
        setattr(config, f"wasm_{feature}", True)
    return wasmtime.Engine(config)


def test_every_part_is_decoded_with_its_place() -> None:
    code = binary(EVERYTHING)
    module = decode_module(code)
    assert module.types[:2] == (FunctionType(("i32", "i64"), ("f32", "f64")), FunctionType((), ()))
    assert [(one.module, one.name, one.kind) for one in module.imports] == [
        ("a", "f", Kind.FUNCTION),
        ("a", "g", Kind.GLOBAL),
        ("a", "t", Kind.TABLE),
        ("a", "m", Kind.MEMORY),
    ]
    assert [code[one.offset : one.offset + 4] for one in module.imports] == [b"\1a\1f", b"\1a\1g", b"\1a\1t", b"\1a\1m"]
    assert (module.imported_functions, len(module.bodies), module.bodies[0].locals) == (1, 1, 3)
    assert module.function_type(0) == module.types[0]
    assert [(one.minimum, one.maximum, one.element) for one in module.tables] == [
        (1, 2, "funcref"),
        (3, None, "funcref"),
    ]
    assert [(one.minimum, one.maximum, one.wide, one.shared) for one in module.memories] == [(1, 9, False, False)]
    assert [(one.value, one.mutable) for one in module.globals] == [("i32", False), ("i64", True), ("i32", False)]
    assert [one.value for one in module.constants] == [(1 << 64) - 1, 7]
    assert {(one.name, one.kind, one.index) for one in module.exports} == {
        ("own", Kind.TABLE, 1),
        ("seven", Kind.GLOBAL, 2),
        ("f", Kind.FUNCTION, 0),
    }
    assert module.start is not None
    assert module.start[0] == 1
    active, declared, passive = module.elements
    assert active.place is not None
    assert (active.place[0], active.place[1].value, active.functions, active.count) == (1, 1, (1, 0), 2)
    assert (declared.place, declared.functions) == (None, (1,))
    assert (passive.place, passive.functions, passive.count) == (None, (1,), 2)
    first, later = module.data
    assert first.place is not None
    assert (first.place[1].value, first.size, later.place, later.size) == (65530, 3, None, 4)


def test_flow_sees_calls_loops_references_and_writes() -> None:
    code = binary(EVERYTHING)
    (body,) = decode_module(code).bodies
    flow = read_flow(code, body)
    assert list(flow.calls[1]) == [1]
    assert code[flow.calls[0][0]] == 0x10
    assert list(flow.indirect) == [(1, 1)]
    assert flow.references == {1}
    assert list(flow.table_writes) == [1]
    assert len(flow.loops[0]) == 1
    assert code[flow.loops[0][0]] == 0x03
    assert code[flow.loops[1][0] - 1] == 0x0B
    assert flow.depth == 3
    assert flow.later == {}


def test_a_loop_that_nothing_branches_back_to_is_none() -> None:
    code = binary("(module (func (loop (block (br 0)))))")
    (body,) = decode_module(code).bodies
    assert list(read_flow(code, body).loops[0]) == []


@pytest.mark.parametrize(
    "text",
    [
        EVERYTHING,
        '(module (memory (export "memory") i64 1 2))',
        '(module (func (export "f") (param (ref null func)) (result externref) (ref.null extern)))',
        '(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))',
        '(module (func $f (return_call $f)))',
        '(module (global i32 (i32.add (i32.const 3) (i32.mul (i32.const -1) (i32.const 2)))))',
        '(module (type (struct (field (mut i8) i32))) (type (array v128)))',
        '(module (rec (type $a (sub (func))) (type (sub $a (func)))))',
        '(module (tag (param i32)) (func (block $b (try_table (catch_all $b) (throw 0 (i32.const 1))))))',
        f'(module (memory 1) (table 1 funcref) (elem funcref) (data "") (func {SHAPES}))',
        f'(module (func (drop (i8x16.shuffle {" ".join(map(str, range(16)))} {VECTOR} {VECTOR}))))',
        '(module (func (param v128) (drop (f32x4.relaxed_madd (local.get 0) (local.get 0) (local.get 0)))))',
        '(module (table 1 funcref (ref.null func)))',
        '(module (memory 1) (memory 1) (func (drop (i32.load 1 (i32.const 0)))))',
    ],
)  # fmt: skip
def test_it_agrees_with_the_runtime(text: str) -> None:
    code = binary(text)
    theirs = wasmtime.Module(wide_engine(), code)
    ours = decode_module(code)
    assert [(one.module, one.name) for one in ours.imports] == [(one.module, one.name) for one in theirs.imports]
    assert [one.name for one in ours.exports] == [one.name for one in theirs.exports]
    for body in ours.bodies:
        read_flow(code, body)
        assert sum(1 for _ in instructions(code, body.start, body.end)) > 0


def test_flow_and_instructions_agree_on_real_code() -> None:
    code = CATALOGUE.read_bytes()
    module = decode_module(code)
    for body in module.bodies:
        flow = read_flow(code, body)
        walked = list(instructions(code, body.start, body.end))
        assert list(flow.calls[0]) == [one.offset for one in walked if one.opcode == 0x10]
        assert list(flow.calls[1]) == [one.numbers[0] for one in walked if one.opcode == 0x10]
        assert set(flow.loops[0]) <= {one.offset for one in walked if one.opcode == 0x03}


def test_constants_are_worked_out() -> None:
    code = binary("(module (global i32 (i32.sub (i32.const 3) (i32.const 5))) (global i32 (global.get 0)))")
    constants = decode_module(code).constants
    assert [(one.value, one.extended) for one in constants] == [((1 << 32) - 2, True), ((1 << 32) - 2, False)]


@pytest.mark.parametrize(
    ("code", "offset"),
    [
        (b"", 0),
        (b"\0asm\2\0\0\0", 0),
        (HEAD + b"\1", 9),
        (HEAD + b"\1\5\1\x60", 10),
        (HEAD + b"\x0e\0", 8),
        (HEAD + section(3, b"\0") + section(1, b"\0"), 11),
        (HEAD + section(1, b"\0") + section(1, b"\0"), 11),
        (HEAD + section(1, b"\0\0"), 11),
        (HEAD + section(1, b"\1\x61"), 11),
        (HEAD + section(1, b"\1\x60\1\x01\0"), 13),
        (HEAD + section(2, b"\1\1\xff\1a\0\0"), 12),
        (HEAD + section(2, b"\1\1a\1a\5\0"), 15),
        (HEAD + section(3, b"\1\0"), 12),
        (HEAD + section(4, b"\1\x7f\0\1"), 11),
        (HEAD + section(5, b"\1\x08\1"), 11),
        (HEAD + section(5, b"\1\0" + b"\x80" * 10 + b"\0"), 12),
        (HEAD + section(6, b"\1\x7f\2\x41\0\x0b"), 12),
        (HEAD + section(6, b"\1\x7f\0\x20\0\x0b"), 13),
        (HEAD + section(6, b"\1\x7f\0\x41\xff\xff\xff\xff\x08\x0b"), 14),
        (HEAD + section(9, b"\1\x08"), 11),
        (HEAD + section(10, b"\1\2\0\x0b"), 14),
        (HEAD + section(11, b"\1\3\0"), 11),
        (HEAD + section(12, b"\1"), 11),
        (HEAD + section(3, b"\xff\xff\xff\xff\x1f"), 10),
    ],
)
def test_malformed_bytes_are_named_with_their_place(code: bytes, offset: int) -> None:
    with pytest.raises(MalformedModule) as caught:
        decode_module(code)
    assert (caught.value.code, caught.value.offset) == (MODULE_INVALID, offset)


@pytest.mark.parametrize(
    "code",
    [
        HEAD + section(1, leb(20_001) + b"\x60\0\0" * 20_001),
        HEAD + section(3, leb(100_001) + b"\0" * 100_001),
        HEAD + section(10, b"\1" + leb(7) + b"\1" + leb(1 << 30) + b"\x7f\x0b"),
        HEAD + section(2, b"\1" + leb(10_001) + b"a" * 10_001 + b"\0\0\0"),
    ],
)
def test_too_much_of_something_is_not_even_decoded(code: bytes) -> None:
    with pytest.raises(OversizedModule) as caught:
        decode_module(code)
    assert caught.value.code == MODULE_TOO_LARGE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x0b\x0b",
        b"\x0c\1\x0b",
        b"\xff\x0b",
        b"\xfd\xff\xff\3\x0b",
        b"\xfc\x85\x82\x04\x0b",
        b"\x0e\x05\0\x0b",
    ],
)
def test_code_that_does_not_decode_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedModule):
        read_flow(body, Body(0, len(body), 0))


@given(st.integers(0, len(binary(EVERYTHING)) - 1), st.binary(min_size=1, max_size=8))
def test_altered_bytes_decode_or_are_malformed(at: int, change: bytes) -> None:
    code = bytearray(binary(EVERYTHING))
    code[at : at + len(change)] = change
    assert 0 <= fault(bytes(code)) <= len(code)


def fault(code: bytes) -> int:
    """Where a module does not decode; 0 when it does."""
    try:
        for body in decode_module(code).bodies:
            read_flow(code, body)
            list(instructions(code, body.start, body.end))
    except (MalformedModule, OversizedModule) as error:
        return error.offset
    return 0
