"""The compile role: a forked child that validates one module, compiles it, and leaves the result in memory files.

What it leaves is native code made from hostile bytes. If those bytes took this process over, the code may be anything:
it is only ever run by workers, under the same lock-down, for jobs of that very module.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from wasmtime import Engine, Module, WasmtimeError

from ringfence.agent.confine import shares
from ringfence.agent.errors import MODULE_INVALID, SandboxError
from ringfence.agent.sandbox import validation
from ringfence.agent.sandbox.engines import PROFILES, engine, profile
from ringfence.agent.sandbox.exchange import Refusal, readable
from ringfence.agent.sandbox.lockdown import MAX_COMPILED, Lockdown
from ringfence.agent.sandbox.orders import CompileOrder
from ringfence.agent.sandbox.verdicts import MAX_VERDICT, Verdict, too_much


@dataclass(frozen=True, slots=True)
class Compiler:
    """What a zygote makes once for every compile child: an unused engine for each profile."""

    lockdown: Lockdown
    engines: Mapping[str, Engine]


def prepare(lockdown: Lockdown) -> Compiler:
    """What `begin` needs, made before the fork."""
    # What refusals escape names with. Python loads a codec when it is first used, and a locked-down child may not.
    codecs.lookup("unicode_escape")
    return Compiler(lockdown, {name: engine(name) for name in PROFILES})


def begin(compiler: Compiler) -> Callable[[CompileOrder, Sequence[int]], None]:
    """What a compile child does before it knows its module; gives what it does then."""
    program = compiler.lockdown.begin(may_make_code=True)

    def compile_module(order: CompileOrder, files: Sequence[int]) -> None:
        module_file, verdict_file, compiled_file = files
        shares.take(order.compute_units)
        code = os.pread(module_file, os.fstat(module_file).st_size, 0)
        compiler.lockdown.compiler(program)
        try:
            verdict, compiled = judge(compiler.engines[profile(order.level)], code, order)
            encoded = msgspec.json.encode(verdict)
        except MemoryError:
            compiled, encoded = b"", b""
        if not 0 < len(encoded) <= MAX_VERDICT or len(compiled) > MAX_COMPILED:
            compiled, encoded = b"", msgspec.json.encode(Verdict(None, Refusal.of(too_much())))
        _write(compiled_file, compiled)
        _write(verdict_file, encoded)

    return compile_module


def judge(machine: Engine, code: bytes, order: CompileOrder) -> tuple[Verdict, bytes]:
    """The verdict on a module, and what it compiles to, empty where it is refused."""
    report = validation.validate(
        code,
        order.level,
        memory_bytes=order.memory_bytes,
        qubits=order.qubits,
        specification=partial(_complaint, machine),
    )
    refused = validation.refusal(report)
    if refused is not None:
        return Verdict(report, Refusal.of(refused)), b""
    try:
        return Verdict(report, None), bytes(Module(machine, code).serialize())
    except WasmtimeError as error:
        return Verdict(report, Refusal.of(_uncompilable(error))), b""


def _complaint(machine: Engine, code: bytes) -> str:
    """What the runtime's own validation says against a module, "" when it is valid."""
    try:
        Module.validate(machine, code)
    except WasmtimeError as error:
        return str(error).splitlines()[0]
    return ""


def _uncompilable(error: WasmtimeError) -> SandboxError:
    return SandboxError(
        MODULE_INVALID,
        f"The module is valid, but cannot be compiled: {readable(str(error).splitlines()[0])}.",
        field="module",
        hint="Split its largest functions.",
    )


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
