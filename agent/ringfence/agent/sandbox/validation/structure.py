"""The checks of levels low and medium: imports, entry point, memory, tables, segments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ringfence.agent.sandbox.imports import IMPORTS
from ringfence.agent.sandbox.validation.subject import Found, Subject
from ringfence.agent.sandbox.verdicts import Entry
from ringfence.agent.sandbox.wasm import PAGE, Constant, Export, FunctionType, Imported, Kind
from ringfence.terminal import printable

COMMAND: Final = "_start"
REACTOR: Final = "main"
MEMORY: Final = "memory"
TABLE_ELEMENTS: Final = 1_000_000
"""How many elements all tables of a guest may have together."""

_COMMAND_TYPE: Final = FunctionType((), ())
_REACTOR_TYPE: Final = FunctionType(("i32", "i32"), ("i32",))
# What the host also calls when a reactor exports it.
_REACTOR_CALLS: Final = {"_initialize": FunctionType((), ()), "ringfence_alloc": FunctionType(("i32",), ("i32",))}
_SHOWN_NAME: Final = 64


def entry(subject: Subject) -> Entry:
    """How the module is run. One that exports `_start` is a command, whatever else it exports."""
    if subject.exported(COMMAND, Kind.FUNCTION):
        return "command"
    return "reactor" if subject.exported(REACTOR, Kind.FUNCTION) else ""


def shown(name: str) -> str:
    """A name as it may stand in a message."""
    return printable(name[:_SHOWN_NAME]) + ("..." if len(name) > _SHOWN_NAME else "")


def imports_known(subject: Subject) -> Iterator[Found]:
    """Imports that are not there, and those that are no functions."""
    for one in subject.module.imports:
        if one.kind is not Kind.FUNCTION:
            kind = one.kind.name.lower()
            yield Found(True, f"The module imports the {kind} {_name(one)}, and only functions can be had.", one.offset)
        elif (one.module, one.name) not in IMPORTS:
            yield Found(True, f"The module imports {_name(one)}, which this sandbox does not offer.", one.offset)


def imports_typed(subject: Subject) -> Iterator[Found]:
    """Imports that have another type."""
    for one in subject.module.imports:
        known = IMPORTS.get((one.module, one.name))
        if known is None or one.kind is not Kind.FUNCTION:
            continue
        types = subject.module.types
        kind = types[one.type] if one.type < len(types) else None
        offered = FunctionType(known.parameters, known.results)
        if kind != offered:
            reason = f"The module imports {_name(one)} as {_typed(kind)}, and the sandbox offers {_typed(offered)}."
            yield Found(True, reason, one.offset)


def entry_present(subject: Subject) -> Iterator[Found]:
    """No entry point."""
    if not entry(subject):
        yield Found(True, f"The module exports neither a function {COMMAND} nor a function {REACTOR}.", subject.end)


def entry_typed(subject: Subject) -> Iterator[Found]:
    """An entry point that cannot be called as one."""
    how = entry(subject)
    wanted = {COMMAND: _COMMAND_TYPE} if how == "command" else {REACTOR: _REACTOR_TYPE} | _REACTOR_CALLS if how else {}
    for export in subject.module.exports:
        if export.name in wanted:
            yield from _callable(subject, export, wanted[export.name])
    for memory in subject.module.memories if how == "reactor" else ():
        if memory.wide:
            yield Found(True, "The memory has 64-bit addresses, and a reactor's input a 32-bit one.", memory.offset)


def memory_single(subject: Subject) -> Iterator[Found]:
    """More than one memory."""
    for memory in subject.module.memories[1:]:
        yield Found(True, "The module has more than one memory, and its limit holds for one.", memory.offset)


def memory_exported(subject: Subject) -> Iterator[Found]:
    """A memory that the host cannot reach, or none where it has to."""
    if subject.exported(MEMORY, Kind.MEMORY):
        return
    if subject.module.memories:
        reason = f"The module does not export its memory as {MEMORY}."
        yield Found(True, reason, subject.module.memories[0].offset)
    elif entry(subject) == "reactor":
        yield Found(True, f"The module has no memory for the input of {REACTOR}.", subject.end)
    else:
        for one in subject.module.imports:
            known = IMPORTS.get((one.module, one.name))
            if known is not None and known.addresses:
                yield Found(True, f"The module imports {_name(one)}, which needs a memory, and has none.", one.offset)
                return


def memory_minimum(subject: Subject) -> Iterator[Found]:
    """A memory that begins larger than its limit."""
    for memory in subject.module.memories[:1]:
        size = memory.minimum * PAGE
        if size > subject.memory_bytes:
            reason = f"The memory begins with {size} bytes, more than its limit of {subject.memory_bytes}."
            yield Found(True, reason, memory.offset)


def table_minimum(subject: Subject) -> Iterator[Found]:
    """Tables that begin with too many elements."""
    total = 0
    for table in subject.module.tables:
        total += table.minimum
        if total > TABLE_ELEMENTS:
            yield Found(True, f"The tables begin with more than {TABLE_ELEMENTS} elements.", table.offset)
            return


def memory_plain(subject: Subject) -> Iterator[Found]:
    """Memories and tables that are shared, or addressed by 64 bits."""
    for what, parts in (("memory", subject.module.memories), ("table", subject.module.tables)):
        for part in parts:
            if part.shared:
                yield Found(True, f"A {what} is shared between threads, and a guest has one.", part.offset)
            if part.wide:
                yield Found(True, f"A {what} has 64-bit addresses.", part.offset)


def memory_maximum(subject: Subject) -> Iterator[Found]:
    """A memory that is declared to grow past its limit."""
    for memory in subject.module.memories[:1]:
        if memory.maximum is None:
            reason = f"The memory declares no maximum: it stops growing at its limit of {subject.memory_bytes} bytes."
            yield Found(False, reason, memory.offset)
        elif (size := memory.maximum * PAGE) > subject.memory_bytes:
            reason = f"The memory may grow to {size} bytes, more than its limit of {subject.memory_bytes}."
            yield Found(True, reason, memory.offset)


def table_maximum(subject: Subject) -> Iterator[Found]:
    """Tables that are declared to grow to too many elements."""
    for table in subject.module.tables:
        if table.maximum is None:
            yield Found(False, f"A table declares no maximum: it stops at {TABLE_ELEMENTS} elements.", table.offset)
        elif table.maximum > TABLE_ELEMENTS:
            reason = f"A table may grow to {table.maximum} elements, more than {TABLE_ELEMENTS}."
            yield Found(True, reason, table.offset)


def segments_inside(subject: Subject) -> Iterator[Found]:
    """Active segments that do not lie in what they initialise as it begins."""
    memories = [memory.minimum * PAGE for memory in subject.module.memories]
    tables = [table.minimum for table in subject.module.tables]
    for data in subject.module.data:
        if data.place and (why := _outside(data.place, data.size, memories)):
            yield Found(True, f"A data segment of {data.size} bytes {why}.", data.offset)
    for elements in subject.module.elements:
        if elements.place and (why := _outside(elements.place, elements.count, tables)):
            yield Found(True, f"An element segment of {elements.count} functions {why}.", elements.offset)


def _outside(place: tuple[int, Constant], count: int, sizes: list[int]) -> str:
    """Why a segment is not inside; "" when it is."""
    index, start = place
    if index >= len(sizes):
        return "is for what the module does not have"
    if start.value is None:
        return "is put where only running the module can tell"
    if start.value + count > sizes[index]:
        return f"begins at {start.value}, and there are {sizes[index]}"
    return ""


def _callable(subject: Subject, export: Export, wanted: FunctionType) -> Iterator[Found]:
    kind = subject.module.function_type(export.index) if export.kind is Kind.FUNCTION else None
    if kind != wanted:
        reason = f"The module exports {export.name} as {_typed(kind)}, and it is called as {_typed(wanted)}."
        yield Found(True, reason, export.offset)
    elif export.index < subject.module.imported_functions:
        yield Found(True, f"The module exports a function of the host's as {export.name}.", export.offset)


def _name(one: Imported) -> str:
    return f"{shown(one.module)}.{shown(one.name)}"


def _typed(kind: FunctionType | None) -> str:
    if kind is None:
        return "something else than a function"
    return f"({' '.join(kind.parameters)}) -> ({' '.join(kind.results)})"
