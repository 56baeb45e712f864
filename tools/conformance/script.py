"""Runs one script of the specification's suite, converted to JSON, at every level; a process of its own.

    python -m tools.conformance.script FOLDER WASM_TOOLS

prints, as JSON, how each level did. What a level does not offer is told by wasm-tools, not by the engine under test: a
module that the level should take and does not is a failure, and so is one that it should not take and does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import msgspec
from wasmtime import Engine, Module, WasmtimeError, wat2wasm

from ringfence.agent.sandbox.levels import Level
from tools.conformance.acceptance import Acceptance, complaint, everything
from tools.conformance.oracle import WasmTools
from tools.conformance.runtime import Instance, RefusedError, Session, TrappedError, Value
from tools.conformance.tally import Tally
from tools.conformance.values import Given, matches, passed

NOT_OFFERED_ANYWAY: Final = "refused for a feature before its fault"
# The traps that the specification's texts stand for.
_TRAPS: Final = {
    "integer divide by zero": "INTEGER_DIVISION_BY_ZERO",
    "integer overflow": "INTEGER_OVERFLOW",
    "invalid conversion to integer": "BAD_CONVERSION_TO_INTEGER",
    "indirect call type mismatch": "BAD_SIGNATURE",
    "undefined element": "TABLE_OUT_OF_BOUNDS",
    "uninitialized element": "INDIRECT_CALL_TO_NULL",
    "uninitialized element 2": "INDIRECT_CALL_TO_NULL",
    "out of bounds table access": "TABLE_OUT_OF_BOUNDS",
    "out of bounds memory access": "MEMORY_OUT_OF_BOUNDS",
    "unreachable": "UNREACHABLE",
    "null reference": "NULL_REFERENCE",
    "null function reference": "NULL_REFERENCE",
    "call stack exhausted": "STACK_OVERFLOW",
}
_SPECTEST_NAME: Final = "spectest"
_SPECTEST: Final = """(module
  (func (export "print")) (func (export "print_i32") (param i32)) (func (export "print_i64") (param i64))
  (func (export "print_f32") (param f32)) (func (export "print_f64") (param f64))
  (func (export "print_i32_f32") (param i32 f32)) (func (export "print_f64_f64") (param f64 f64))
  (global (export "global_i32") i32 (i32.const 666)) (global (export "global_i64") i64 (i64.const 666))
  (global (export "global_f32") f32 (f32.const 666.6)) (global (export "global_f64") f64 (f64.const 666.6))
  (table (export "table") 10 20 funcref) {wide} (memory (export "memory") 1 2))"""
_WIDE_TABLE: Final = '(table (export "table64") i64 10 20 funcref)'


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call of an exported function, or the reading of an exported global."""

    type: str
    field: str
    module: str = ""
    args: tuple[Given, ...] = ()


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command of a script. Source: wabt, docs/wast2json.md."""

    type: str
    line: int
    action: Action | None = None
    expected: tuple[Given, ...] = ()
    text: str = ""
    filename: str = ""
    binary_filename: str = ""
    module_type: str = ""
    name: str = ""
    as_: str = msgspec.field(default="", name="as")
    instance: str | None = None
    module: str | None = None


class Commands(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole script."""

    source_filename: str
    commands: tuple[Command, ...]


class NotOfferedError(Exception):
    """What a command needs is not offered by the level, for the proposal that it names."""


class FailedError(Exception):
    """An assertion does not hold, or a command that must succeed does not."""


class Script:
    """One script at one level."""

    def __init__(self, folder: Path, level: Level, wide: Engine, tool: WasmTools) -> None:
        self._folder = folder
        self._acceptance = Acceptance(level)
        self._wide = wide
        self._tool = tool
        self._session = Session(self._acceptance.engine)
        self._named: dict[str, Instance | NotOfferedError | FailedError] = {}
        self._registered: dict[str, Instance | NotOfferedError | FailedError] = {}
        self._definitions: dict[str, Command] = {}
        text = _SPECTEST.format(wide=_WIDE_TABLE if level is Level.LOW else "")
        self._registered[_SPECTEST_NAME] = self._session.instantiate(
            Module(self._acceptance.engine, bytes(wat2wasm(text))), []
        )
        self.tally = Tally()

    def run(self, commands: Commands) -> None:
        """Every command, counted."""
        name = Path(commands.source_filename).name
        for command in commands.commands:
            asserts = command.type.startswith("assert_")
            try:
                self._command(command)
            except NotOfferedError as error:
                if asserts:
                    self.tally.set_apart(str(error))
            except FailedError as error:
                self.tally.failed.append(f"{name}:{command.line}: {command.type}: {error}")
            else:
                self.tally.passed += asserts and command.module_type != "text"
                self.tally.text += asserts and command.module_type == "text"

    def _command(self, command: Command) -> None:
        match command.type:
            case "module":
                self._keep(command.name, command)
            case "module_definition":
                self._definitions[command.name] = command
                self._load(command)
            case "module_instance":
                self._keep(command.instance or "", self._definitions[command.module or ""])
            case "register":
                self._registered[command.as_] = self._named[command.name]
            case "action":
                self._act(command)
            case "assert_return":
                self._returns(command)
            case "assert_trap" | "assert_exhaustion":
                self._traps(command)
            case "assert_invalid" | "assert_malformed":
                self._is_refused(command)
            case "assert_unlinkable":
                self._does_not_link(command)
            case "assert_uninstantiable":
                self._does_not_start(command)
            case _:
                # Of exceptions, which no level offers, so that nothing reaches what is asserted.
                self._act(command)
                raise FailedError("this command is not known")

    def _keep(self, name: str, command: Command) -> None:
        """Instantiate a module; what it cannot be is kept too, for what follows."""
        kept: Instance | NotOfferedError | FailedError
        try:
            kept = self._instantiate(command)
        except (NotOfferedError, FailedError) as error:
            kept = error
            raise
        except (TrappedError, RefusedError) as error:
            kept = FailedError(f"the module is not instantiated: {error}")
            raise kept from error
        finally:
            self._named[""] = self._named[name] = kept

    def _load(self, command: Command) -> Module:
        """The module compiled. Raises `NotOfferedError`, when the level rightly refuses it, or `FailedError`."""
        path = self._folder / (command.binary_filename or command.filename)
        code = path.read_bytes()
        need = self._tool.need(path, self._acceptance.level)
        refused = self._acceptance.lacking(code)
        if need:
            if not refused:
                raise FailedError(f"a module with {need} is accepted")
            self.tally.withheld += 1
            self._set_apart(code, NotOfferedError(need))
            raise NotOfferedError(need)
        if refused:
            raise FailedError(f"the module is refused: {refused}")
        self.tally.modules += 1
        return Module(self._acceptance.engine, code)

    def _set_apart(self, code: bytes, reason: NotOfferedError) -> None:
        """What a module that is not offered would have written to is not what the script takes it for from now on."""
        for one in Module(self._wide, code).imports:
            changed = self._registered.get(one.module)
            if one.module == _SPECTEST_NAME or not isinstance(changed, Instance):
                continue
            for known in (self._registered, self._named):
                known.update({name: reason for name, instance in known.items() if instance is changed})

    def _instantiate(self, command: Command) -> Instance:
        module = self._load(command)
        imports = []
        for one in module.imports:
            source = self._registered.get(one.module)
            if source is None:
                raise RefusedError(f"nothing is registered as {one.module}")
            offered = self._session.export(_there(source), one.name or "")
            if offered is None:
                raise RefusedError(f"{one.module} exports no {one.name}")
            imports.append(offered)
        return self._session.instantiate(module, imports)

    def _act(self, command: Command) -> list[Value]:
        """The results of a command's action. Raises `FailedError` when it traps."""
        try:
            return self._perform(command)
        except (TrappedError, RefusedError) as error:
            raise FailedError(str(error)) from error

    def _perform(self, command: Command) -> list[Value]:
        action = command.action
        if action is None:
            raise FailedError("there is no action")
        found = self._session.export(_there(self._named[action.module]), action.field)
        if found is None:
            raise FailedError(f"nothing is exported as {action.field}")
        if action.type == "get":
            return [self._session.read(found)]
        try:
            arguments = [passed(one) for one in action.args]
        except ValueError as error:
            raise FailedError(str(error)) from error
        return self._session.call(found, arguments)

    def _returns(self, command: Command) -> None:
        results = self._act(command)
        fits = len(results) == len(command.expected) and all(
            matches(expected, result) for expected, result in zip(command.expected, results, strict=True)
        )
        if not fits:
            raise FailedError("another result than expected")

    def _traps(self, command: Command) -> None:
        try:
            self._perform(command)
        except TrappedError as error:
            _same_trap(command.text, error)
        except RefusedError as error:
            raise FailedError(str(error)) from error
        else:
            raise FailedError(f"no trap, where {command.text!r} is due")

    def _is_refused(self, command: Command) -> None:
        path = self._folder / (command.binary_filename or command.filename)
        code = path.read_bytes()
        if command.module_type == "text" and not command.binary_filename:
            try:
                code = bytes(wat2wasm(code))
            except WasmtimeError:
                return
        refused = self._acceptance.lacking(code)
        if not refused:
            raise FailedError(f"the module is accepted, where {command.text!r} is due")
        if refused != complaint(self._wide, code):
            raise NotOfferedError(NOT_OFFERED_ANYWAY)

    def _does_not_link(self, command: Command) -> None:
        try:
            self._instantiate(command)
        except RefusedError:
            return
        except TrappedError as error:
            raise FailedError(f"it links, and traps: {error}") from error
        raise FailedError(f"the module links, where {command.text!r} is due")

    def _does_not_start(self, command: Command) -> None:
        try:
            self._instantiate(command)
        except TrappedError as error:
            _same_trap(command.text, error)
        except RefusedError as error:
            raise FailedError(str(error)) from error
        else:
            raise FailedError(f"the module starts, where {command.text!r} is due")


def _there(kept: Instance | NotOfferedError | FailedError) -> Instance:
    if isinstance(kept, NotOfferedError):
        raise NotOfferedError(*kept.args)
    if isinstance(kept, FailedError):
        raise FailedError(f"it depends on this: {kept}")
    return kept


def _same_trap(text: str, error: TrappedError) -> None:
    if error.code != _TRAPS.get(text):
        raise FailedError(f"another trap than {text!r}: {error.code}")


def main(folder: Path, tool: WasmTools) -> None:
    """Run the script in `folder` and print the tallies by level."""
    commands = msgspec.json.decode((folder / "script.json").read_bytes(), type=Commands)
    wide = everything()
    tallies: dict[str, Tally] = {}
    for level in Level:
        script = Script(folder, level, wide, tool)
        script.run(commands)
        tallies[level.value] = script.tally
    sys.stdout.buffer.write(msgspec.json.encode(tallies))


if __name__ == "__main__":
    main(Path(sys.argv[1]), WasmTools(sys.argv[2]))
