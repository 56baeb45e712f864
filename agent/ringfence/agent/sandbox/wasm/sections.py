"""Decodes a module's sections; function bodies are only delimited, `flow` and `instructions` read them.

Source: WebAssembly Core Specification 3.0, section 5.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from ringfence.agent.sandbox.wasm import constants, types
from ringfence.agent.sandbox.wasm.reading import MalformedModule, OversizedModule, Reader
from ringfence.agent.sandbox.wasm.values import (
    BOUNDS,
    Body,
    Constant,
    Data,
    Elements,
    Export,
    FunctionType,
    GlobalType,
    Imported,
    Kind,
    MemoryType,
    TableType,
    WasmModule,
)

MAGIC: Final = b"\0asm"
VERSION: Final = b"\1\0\0\0"

# Section ids in the order in which they may stand; a custom section (0) may stand anywhere.
_ORDER: Final = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)


def decode_module(code: bytes) -> WasmModule:
    """The module in `code`; raises `MalformedModule`, or `OversizedModule` past one of `BOUNDS`."""
    if not code.startswith(MAGIC + VERSION):
        raise MalformedModule("it does not begin as a module of version 1 does", 0)
    module = _Decoder()
    reader = Reader(code, 8, len(code))
    last = -1
    while reader.at < reader.end:
        start = reader.at
        number = reader.byte()
        size = reader.u32()
        inner = Reader(code, reader.skip(size), reader.at)
        if number == 0:
            inner.skip(inner.u32())
            continue
        if number not in _ORDER:
            raise MalformedModule(f"there is no section {number}", start)
        place = _ORDER.index(number)
        if place <= last:
            raise MalformedModule(f"section {number} is out of order", start)
        last = place
        module.sections[number](inner)
        if inner.at != inner.end:
            raise MalformedModule(f"section {number} is longer than what is in it", inner.at)
    return module.finish(len(code))


class _Decoder:
    """The parts decoded so far."""

    def __init__(self) -> None:
        self._types: tuple[FunctionType | None, ...] = ()
        self._imports: tuple[Imported, ...] = ()
        self._functions: list[int] = []
        self._declared = 0
        self._bodies: tuple[Body, ...] = ()
        self._tables: list[TableType] = []
        self._memories: list[MemoryType] = []
        self._globals: list[GlobalType] = []
        self._values: list[int | None] = []
        self._constants: list[Constant] = []
        self._exports: tuple[Export, ...] = ()
        self._start: tuple[int, int] | None = None
        self._elements: tuple[Elements, ...] = ()
        self._data: tuple[Data, ...] = ()
        self._data_count: int | None = None
        self.sections: Mapping[int, Callable[[Reader], None]] = MappingProxyType(
            {
                1: self._type_section,
                2: self._import_section,
                3: self._function_section,
                4: self._table_section,
                5: self._memory_section,
                13: self._tag_section,
                6: self._global_section,
                7: self._export_section,
                8: self._start_section,
                9: self._element_section,
                12: self._data_count_section,
                10: self._code_section,
                11: self._data_section,
            }
        )

    def finish(self, end: int) -> WasmModule:
        """The module, once every section is decoded."""
        if len(self._bodies) != self._declared:
            raise MalformedModule(f"{self._declared} functions are declared and {len(self._bodies)} have code", end)
        if self._data_count is not None and self._data_count != len(self._data):
            raise MalformedModule(f"{self._data_count} data segments are counted and {len(self._data)} are there", end)
        return WasmModule(
            types=self._types,
            imports=self._imports,
            functions=tuple(self._functions),
            bodies=self._bodies,
            tables=tuple(self._tables),
            memories=tuple(self._memories),
            globals=tuple(self._globals),
            constants=tuple(self._constants),
            exports=self._exports,
            start=self._start,
            elements=self._elements,
            data=self._data,
        )

    def _type_section(self, reader: Reader) -> None:
        self._types = tuple(types.type_section(reader))
        if len(self._types) > BOUNDS["types"]:
            raise OversizedModule("types", len(self._types), BOUNDS["types"], reader.at)

    def _import_section(self, reader: Reader) -> None:
        self._imports = tuple([self._import(reader) for _ in range(reader.count("imports"))])

    def _import(self, reader: Reader) -> Imported:
        start = reader.at
        module, name = reader.name(), reader.name()
        kind = _kind(reader)
        index = 0
        match kind:
            case Kind.FUNCTION:
                index = reader.u32()
                self._functions.append(index)
            case Kind.TABLE:
                self._tables.append(types.table_type(reader))
            case Kind.MEMORY:
                self._memories.append(types.memory_type(reader))
            case Kind.GLOBAL:
                self._globals.append(types.global_type(reader))
                self._values.append(None)
            case Kind.TAG:
                _tag(reader)
        return Imported(module, name, kind, index, start)

    def _function_section(self, reader: Reader) -> None:
        declared = reader.indices("functions")
        self._declared = len(declared)
        self._functions += declared

    def _table_section(self, reader: Reader) -> None:
        for _ in range(reader.count("tables")):
            # 0x40 0x00 announces a table that is filled with a value.
            filled = reader.data[reader.at : min(reader.at + 2, reader.end)] == b"\x40\0"
            if filled:
                reader.skip(2)
            self._tables.append(types.table_type(reader))
            if filled:
                self._constants.append(constants.constant(reader, self._values))

    def _memory_section(self, reader: Reader) -> None:
        self._memories += [types.memory_type(reader) for _ in range(reader.count("memories"))]

    def _tag_section(self, reader: Reader) -> None:
        for _ in range(reader.count("tags")):
            _tag(reader)

    def _global_section(self, reader: Reader) -> None:
        for _ in range(reader.count("globals")):
            kind = types.global_type(reader)
            constant = constants.constant(reader, self._values)
            self._globals.append(kind)
            self._constants.append(constant)
            self._values.append(None if kind.mutable else constant.value)

    def _export_section(self, reader: Reader) -> None:
        self._exports = tuple([_export(reader) for _ in range(reader.count("exports"))])

    def _start_section(self, reader: Reader) -> None:
        self._start = (reader.at, 0)
        self._start = (reader.u32(), self._start[0])

    def _element_section(self, reader: Reader) -> None:
        self._elements = tuple([self._element(reader) for _ in range(reader.count("element segments"))])

    def _element(self, reader: Reader) -> Elements:
        start = reader.at
        flags = reader.u32()
        if flags > 7:
            raise MalformedModule(f"there is no element segment of the kind {flags}", start)
        active, explicit, expressions = not flags & 1, bool(flags & 2), bool(flags & 4)
        place = None
        if active:
            table = reader.u32() if explicit else 0
            place = (table, constants.constant(reader, self._values))
        if flags & 3:  # the short form of an active segment says no type
            _element_kind(reader, expressions=expressions)
        if not expressions:
            functions = reader.indices("elements")
            return Elements(place, functions, len(functions), start)
        items = [constants.constant(reader, self._values) for _ in range(reader.count("elements"))]
        return Elements(place, tuple([one for item in items for one in item.functions]), len(items), start)

    def _data_count_section(self, reader: Reader) -> None:
        self._data_count = reader.u32()

    def _code_section(self, reader: Reader) -> None:
        count = reader.count("functions")
        self._bodies = tuple([_body(reader) for _ in range(count)])

    def _data_section(self, reader: Reader) -> None:
        self._data = tuple([self._datum(reader) for _ in range(reader.count("data segments"))])

    def _datum(self, reader: Reader) -> Data:
        start = reader.at
        flags = reader.u32()
        if flags > 2:
            raise MalformedModule(f"there is no data segment of the kind {flags}", start)
        place = None
        if flags != 1:
            memory = reader.u32() if flags == 2 else 0
            place = (memory, constants.constant(reader, self._values))
        size = reader.u32()
        reader.skip(size)
        return Data(place, size, start)


def _kind(reader: Reader) -> Kind:
    value = reader.byte()
    if value > Kind.TAG:
        raise MalformedModule(f"there is no import or export of the kind {value}", reader.at - 1)
    return Kind(value)


def _tag(reader: Reader) -> None:
    if reader.byte() != 0:
        raise MalformedModule("a tag has an attribute that does not exist", reader.at - 1)
    reader.u32()


def _export(reader: Reader) -> Export:
    start = reader.at
    name = reader.name()
    return Export(name, _kind(reader), reader.u32(), start)


def _element_kind(reader: Reader, *, expressions: bool) -> None:
    start = reader.at
    if expressions:
        types.value_type(reader)
    elif reader.byte() != 0:
        raise MalformedModule("an element segment has a kind that does not exist", start)


def _body(reader: Reader) -> Body:
    size = reader.u32()
    start = reader.at
    if size > BOUNDS["bytes of a function"]:
        raise OversizedModule("bytes of a function", size, BOUNDS["bytes of a function"], start)
    reader.skip(size)
    inner = Reader(reader.data, start, reader.at)
    declared = 0
    for _ in range(inner.u32()):
        declared += inner.u32()
        types.value_type(inner)
        if declared > BOUNDS["locals of a function"]:
            raise OversizedModule("locals of a function", declared, BOUNDS["locals of a function"], start)
    return Body(inner.at, inner.end, declared)
