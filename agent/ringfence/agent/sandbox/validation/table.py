"""The checks by level: the one table of names, codes, threats and what to do; docs/guests.md shows it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ringfence.agent.errors import (
    COMPONENT_GIVEN,
    ENTRY_POINT_MISSING,
    ENTRY_POINT_TYPE,
    IMPORT_UNKNOWN,
    MEMORY_LIMIT,
    MODULE_INVALID,
    MODULE_REFUSED,
    MODULE_TOO_LARGE,
    QUANTUM_ARGUMENT,
    QUANTUM_DISABLED,
)
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.validation import control, quantum, structure
from ringfence.agent.sandbox.validation.subject import Check

FORMAT: Final = "format"
LAYER: Final = "layer"
SPECIFICATION: Final = "specification"
SIZE: Final = "size"

_LOW, _MEDIUM, _HIGH, _QUANTUM = Level

_ALL: Final = (
    Check(
        FORMAT,
        _LOW,
        MODULE_INVALID,
        "bytes that are no module reach a parser that was made for something else",
        "Send WebAssembly in the binary format.",
        None,
    ),
    Check(
        LAYER,
        _LOW,
        COMPONENT_GIVEN,
        "a component brings an interface of its own, which no check here covers",
        "Send the core module that the component wraps, or build for wasm32-wasip1.",
        None,
    ),
    Check(
        SPECIFICATION,
        _LOW,
        MODULE_INVALID,
        "code that is not type-safe leaves its memory",
        "Build for wasm32 without threads, garbage collection, exceptions or several memories; levels high and quantum "
        "take WebAssembly 2.0 alone.",
        None,
    ),
    Check(
        SIZE,
        _LOW,
        MODULE_TOO_LARGE,
        "a module made to cost its compiler time and memory",
        "Strip its debug information, or split it up.",
        None,
    ),
    Check(
        "imports.known",
        _LOW,
        IMPORT_UNKNOWN,
        "a guest gets at something of the host's that nobody meant to offer",
        "Use only what ringfence.h declares, and functions of wasi_snapshot_preview1; docs/guests.md lists both.",
        structure.imports_known,
    ),
    Check(
        "imports.typed",
        _LOW,
        IMPORT_UNKNOWN,
        "a host function reads arguments that the guest did not pass",
        "Declare it as docs/guests.md or WASI preview 1 does.",
        structure.imports_typed,
    ),
    Check(
        "entry.present",
        _LOW,
        ENTRY_POINT_MISSING,
        "what runs is not what was meant",
        "Build a WASI command (a C program with main, or with ringfence.h's RINGFENCE_MAIN), or a reactor that exports "
        "main.",
        structure.entry_present,
    ),
    Check(
        "entry.typed",
        _LOW,
        ENTRY_POINT_TYPE,
        "the host calls the guest with arguments that it does not take",
        "Define and export _start without parameters and results, or main with two i32 parameters and one i32 result.",
        structure.entry_typed,
    ),
    Check(
        "memory.single",
        _LOW,
        MODULE_REFUSED,
        "memory beside the one that the limit counts",
        "Build it with one memory.",
        structure.memory_single,
    ),
    Check(
        "memory.exported",
        _LOW,
        ENTRY_POINT_MISSING,
        "a host function finds no memory, or another one than the guest means",
        "Define one memory and export it as memory.",
        structure.memory_exported,
    ),
    Check(
        "memory.minimum",
        _LOW,
        MEMORY_LIMIT,
        "a guest has more memory than its limit before it runs",
        "Use less memory, or ask for a higher limit.",
        structure.memory_minimum,
    ),
    Check(
        "table.minimum",
        _LOW,
        MODULE_REFUSED,
        "tables, which no memory limit counts, take the host's memory",
        "Use smaller tables.",
        structure.table_minimum,
    ),
    Check(
        "memory.plain",
        _MEDIUM,
        MODULE_REFUSED,
        "another thread changes what was checked; addresses of 64 bits are checked by slower and younger code",
        "Build for wasm32 without threads.",
        structure.memory_plain,
    ),
    Check(
        "memory.maximum",
        _MEDIUM,
        MEMORY_LIMIT,
        "a guest counts on memory that it will not get, and fails half-way",
        "Declare a maximum within the limit (wasm-ld: --max-memory), or ask for a higher limit.",
        structure.memory_maximum,
    ),
    Check(
        "table.maximum",
        _MEDIUM,
        MODULE_REFUSED,
        "a table grows until the host has no memory left",
        "Declare a smaller maximum.",
        structure.table_maximum,
    ),
    Check(
        "segments.inside",
        _MEDIUM,
        MODULE_REFUSED,
        "a module that traps half initialised",
        "Let memory and table begin as large as what they are initialised with.",
        structure.segments_inside,
    ),
    Check(
        "control.features",
        _HIGH,
        MODULE_REFUSED,
        "younger features of the runtime, where its latest escapes were found",
        "Build without -mtail-call, -mrelaxed-simd and the like, or ask for level medium.",
        control.features,
    ),
    Check(
        "control.nesting",
        _HIGH,
        MODULE_TOO_LARGE,
        "a function made to exhaust whatever walks its blocks",
        "Split the function up.",
        control.nesting,
    ),
    Check(
        "control.tables",
        _HIGH,
        MODULE_REFUSED,
        "an indirect call goes where somebody outside the module pointed it",
        "Do not export or import the table of functions (wasm-ld: drop --export-table and --import-table).",
        control.tables,
    ),
    Check(
        "control.start",
        _HIGH,
        MODULE_REFUSED,
        "code talks to the host before its entry point is called and its run is recorded",
        "Do that work in the entry point.",
        control.start,
    ),
    Check(
        "control.calls",
        _HIGH,
        None,
        "recursion uses the stack up, until a trap ends it",
        "Nothing to do.",
        control.calls,
    ),
    Check(
        "control.loops",
        _HIGH,
        None,
        "a guest that makes no progress looks like one that works, until its deadline",
        "Call security_checkpoint in long loops.",
        control.loops,
    ),
    Check(
        "quantum.enabled",
        _QUANTUM,
        QUANTUM_DISABLED,
        "a circuit is submitted where none may run",
        "Ask for at least one qubit.",
        quantum.enabled,
    ),
    Check(
        "quantum.constants",
        _QUANTUM,
        QUANTUM_ARGUMENT,
        "a circuit fails half-way, after it has used the device",
        "Use the gates and bases of ringfence.h, and as many qubits as the job has.",
        quantum.constants,
    ),
    Check(
        "quantum.runtime",
        _QUANTUM,
        None,
        "an argument that nobody can know beforehand; the broker checks each",
        "Nothing to do.",
        quantum.at_run_time,
    ),
    Check(
        "quantum.synchronised",
        _QUANTUM,
        None,
        "a result is taken for one of gates that have not run; a measurement waits for them",
        "Nothing to do.",
        quantum.synchronised,
    ),
    Check(
        "quantum.reuse",
        _QUANTUM,
        None,
        "a measured qubit is taken for a fresh one; it is legal",
        "Reset the qubit with a gate that depends on what was measured, if that was not meant.",
        quantum.reuse,
    ),
)

CHECKS: Mapping[str, Check] = MappingProxyType({check.name: check for check in _ALL})
"""Every check by its name, in the order in which a refusal is looked for."""


def checks(level: Level) -> tuple[Check, ...]:
    """The checks of a level: its own and those of the ones below it."""
    levels = list(Level)
    return tuple(check for check in _ALL if levels.index(check.level) <= levels.index(level))
