"""The checks of level high: which features are used, and whether control stays where the module's text says."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE
from ringfence.agent.sandbox.validation.subject import Found, Subject
from ringfence.agent.sandbox.wasm import Kind

NESTING: Final = 10_000
"""How many blocks deep a function may nest."""


def features(subject: Subject) -> Iterator[Found]:
    """What WebAssembly 2.0 does not have."""
    for table in subject.module.tables:
        if table.element not in ("funcref", "externref"):
            yield Found(True, f"A table holds {table.element}.", table.offset)
    for kind in subject.module.globals:
        if kind.value.startswith("("):
            yield Found(True, f"A global holds {kind.value}.", kind.offset)
    places = [one.place for one in subject.module.data] + [one.place for one in subject.module.elements]
    for constant in (*subject.module.constants, *(place[1] for place in places if place)):
        if constant.extended:
            yield Found(True, "A constant is computed by an extended expression.", constant.offset)
    for flow in subject.flows:
        for opcode, offset in flow.later.items():
            yield Found(True, f"The instruction {opcode:#04x} is later than WebAssembly 2.0.", offset)


def nesting(subject: Subject) -> Iterator[Found]:
    """Blocks nested beyond reason."""
    for body, flow in zip(subject.module.bodies, subject.flows, strict=True):
        if flow.depth > NESTING:
            yield Found(True, f"A function nests {flow.depth} blocks, more than {NESTING}.", body.start)


def tables(subject: Subject) -> Iterator[Found]:
    """Indirect calls through tables that somebody else can write; and writes by the guest itself."""
    exported = {export.index for export in subject.module.exports if export.kind is Kind.TABLE}
    imported = range(sum(one.kind is Kind.TABLE for one in subject.module.imports))
    for flow in subject.flows:
        for (_, table), offset in flow.indirect.items():
            if table in exported or table in imported:
                whose = "exported" if table in exported else "imported"
                yield Found(True, f"A function is called through table {table}, which is {whose}.", offset)
    for flow in subject.flows:
        for table, offset in flow.table_writes.items():
            yield Found(False, f"The guest itself writes table {table} while it runs.", offset)


def start(subject: Subject) -> Iterator[Found]:
    """A start function that may call the host."""
    if subject.module.start is None:
        return
    function, offset = subject.module.start
    if function >= len(subject.module.functions):
        return
    imported = subject.module.imported_functions
    called = min((callee for callee in subject.calls.reached(function) if callee < imported), default=None)
    if called is not None:
        reason = f"The start function {function} may call the imported function {called} before the entry point runs."
        yield Found(True, reason, offset)


def calls(subject: Subject) -> Iterator[Found]:
    """Recursion, and how deep calls go where there is none."""
    cycle = subject.calls.cycle
    if cycle is not None:
        body = subject.module.bodies[cycle - subject.module.imported_functions]
        yield Found(False, f"Function {cycle} may call itself, so only its stack bounds how deep it goes.", body.start)


def loops(subject: Subject) -> Iterator[Found]:
    """Loops that repeat without a checkpoint that can be seen."""
    without = loops_without_checkpoint(subject)
    if without:
        count = len(without)
        what = "1 loop repeats" if count == 1 else f"{count} loops repeat"
        yield Found(False, f"{what} without a checkpoint that can be seen; the first is here.", without[0])


def loops_without_checkpoint(subject: Subject) -> list[int]:
    """The offsets of the loops that repeat, and call nothing that may report progress."""
    if not any(flow.loops[0] for flow in subject.flows):
        return []
    progress = {
        index
        for index, one in enumerate(one for one in subject.module.imports if one.kind is Kind.FUNCTION)
        if one.module == RINGFENCE and (known := IMPORTS.get((one.module, one.name))) and known.family == "progress"
    }
    reporting = subject.calls.reaching(progress) if progress else progress
    found = []
    for flow in subject.flows:
        at = [offset for offset, callee in zip(*flow.calls, strict=True) if callee in reporting] if reporting else []
        for first, end in zip(*flow.loops, strict=True):
            place = bisect_left(at, first)
            if place == len(at) or at[place] >= end:
                found.append(first)
    return found
