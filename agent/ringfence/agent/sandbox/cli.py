"""Check a guest's module by security level, or run it here on its own, without a gateway."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringfence.agent.errors import SandboxError
    from ringfence.agent.sandbox.modules import Wanted
    from ringfence.agent.sandbox.port import GuestJob, Limits, Outcome, Usage
    from ringfence.agent.sandbox.validation import Finding, Report

MAX_INPUT_BYTES = 256 * 1024 * 1024

# Of levels.py, port.py and protections.py, which the help must not wait for.
_LEVELS = ("low", "medium", "high", "quantum")
_RESULTS = ("bytes", "text", "json", "i32", "i64", "f32", "f64")
_ACCEPTABLE = ("landlock", "namespaces")


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence sandbox`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="say what each check of a level finds in a module",
        description="Validates a module as it would be for a job, and runs nothing of it. docs/guests.md explains each "
        "check.",
    )
    _common(check)
    run_ = actions.add_parser(
        "run",
        help="run a module in the sandbox",
        description="Validates a module and runs it in a locked-down process of its own, with the host's CPU device "
        "and, with --qubits, a simulated quantum device. Its output goes to standard output.",
    )
    _common(run_)
    run_.add_argument("--input", type=Path, metavar="FILE", help="its input (default: none; -: standard input)")
    run_.add_argument("--deadline", type=_duration, default="30s", metavar="TIME", help="wall time (%(default)s)")
    run_.add_argument("--output-limit", type=_size, default="16MiB", metavar="SIZE", help="its output (%(default)s)")
    run_.add_argument("--gpu-memory", type=_size, default="64MiB", metavar="SIZE", help="device memory (%(default)s)")
    run_.add_argument("--units", type=int, default=64, metavar="N", help="compute units, of 64 (%(default)s)")
    run_.add_argument(
        "--result", choices=_RESULTS, default="bytes", help="what the output must be (%(default)s); numbers in binary"
    )
    run_.add_argument(
        "--accept-missing",
        action="append",
        choices=_ACCEPTABLE,
        default=[],
        help="run at high or quantum although this host lacks it; `ringfence doctor` shows what it has",
    )
    run_.add_argument("--output", type=Path, metavar="FILE", help="where the output goes instead")


def run(arguments: argparse.Namespace) -> int:
    """Checks or runs a module: 0 accepted or ended well, 1 refused or failed."""
    from ringfence.agent.sandbox.port import MAX_MODULE_BYTES

    # One byte more, so that what is too large is seen to be.
    code = _read(arguments.module, MAX_MODULE_BYTES + 1)
    return _check(arguments, code) if arguments.action == "check" else _run(arguments, code)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("module", type=Path, metavar="MODULE", help="the guest: WebAssembly in the binary format")
    parser.add_argument("--level", choices=_LEVELS, default="high", help="how strictly it is checked (%(default)s)")
    parser.add_argument("--memory", type=_size, default="1GB", metavar="SIZE", help="its memory (%(default)s)")
    parser.add_argument("--qubits", type=int, default=0, metavar="N", help="its qubits; 0: no quantum device (0)")


def _quantity(text: str, read: Callable[[str], int]) -> int:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _size(text: str) -> int:
    from ringfence.agent.sandbox import quantities

    return _quantity(text, quantities.size)


def _duration(text: str) -> int:
    from ringfence.agent.sandbox import quantities

    return _quantity(text, quantities.duration_ms)


def _read(path: Path, most: int) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read(most)
    with path.open("rb") as file:
        return file.read(most)


def _inspect(wanted: Wanted) -> Report:
    """What the checks of a level find, the runtime's own validation included, in a process of its own.

    Raises `SandboxError` when that process ends without a report, or finds nothing wrong and cannot compile the module.
    """
    import asyncio

    from ringfence.agent.errors import WORKER_LOST, SandboxError
    from ringfence.agent.sandbox.exchange import LOST_HINT
    from ringfence.agent.sandbox.port import Usage
    from ringfence.agent.sandbox.process import open_sandbox

    with open_sandbox() as sandbox:
        verdict = asyncio.run(sandbox.check(wanted))
    if verdict.refusal is not None and (verdict.report is None or not verdict.report.refused):
        raise verdict.refusal.error(Usage(0.0, 0.0, 0))
    if verdict.report is None:
        raise SandboxError(WORKER_LOST, "The module's checks left no report.", field="module", hint=LOST_HINT)
    return verdict.report


def _execute(job: GuestJob, accepted: frozenset[str]) -> Outcome:
    """Validate and run `job`. Raises `SandboxError` when it is refused or does not end well."""
    import asyncio

    from ringfence.agent.sandbox.process import Settings, open_sandbox, strict

    with open_sandbox(settings=lambda children: Settings(refuse=strict(children, accepted))) as sandbox:
        return asyncio.run(sandbox.run(job))


def _limits(arguments: argparse.Namespace, *, gpu_memory: int, deadline: int, output: int, units: int) -> Limits:
    from ringfence.agent.sandbox.port import Limits

    return Limits(
        memory_bytes=arguments.memory,
        gpu_memory_bytes=gpu_memory,
        deadline_ms=deadline,
        output_bytes=output,
        qubits=arguments.qubits,
        compute_units=units,
    )


def _check(arguments: argparse.Namespace, code: bytes) -> int:
    from ringfence.agent.sandbox.levels import Level
    from ringfence.agent.sandbox.modules import Wanted
    from ringfence.terminal import print_json, print_table, printable

    level = Level(arguments.level)
    # Only memory and qubits matter to a check; the rest is the least that there is.
    limits = _limits(arguments, gpu_memory=1, deadline=1, output=1, units=1)
    report = _inspect(Wanted(code, level, limits.memory_bytes, limits.qubits))
    outcomes = _outcomes(report)
    if arguments.json:
        print_json(_described(report, outcomes))
        return int(report.refused)
    verdict = "refused" if report.refused else "accepted"
    print(printable(f"{arguments.module}: {verdict} at level {level}{_facts(report)}"))
    rows = [("CHECK", "OUTCOME", "OFFSET", "WHAT IT FOUND")]
    for name, (outcome, findings) in outcomes.items():
        rows += [(name, "refused" if one.refused else "reported", f"{one.offset:#x}", one.reason) for one in findings]
        if outcome == "passed":
            rows.append((name, outcome, "", ""))
    print_table(rows)
    return int(report.refused)


def _outcomes(report: Report) -> dict[str, tuple[str, list[Finding]]]:
    """Check -> what came of it, and its findings. Behind one that finds no module, none runs."""
    from ringfence.agent.sandbox.validation import checks

    outcomes: dict[str, tuple[str, list[Finding]]] = {}
    unreadable = False
    for check in checks(report.level):
        findings = [one for one in report.findings if one.check == check.name]
        refused = any(one.refused for one in findings)
        passed = "not run" if unreadable else "passed"
        outcomes[check.name] = ("refused" if refused else "reported" if findings else passed, findings)
        unreadable = unreadable or (refused and check.find is None)
    return outcomes


def _described(report: Report, outcomes: dict[str, tuple[str, list[Finding]]]) -> dict[str, object]:
    from ringfence.agent.sandbox.validation import refusal

    error = refusal(report)
    return {
        "level": report.level,
        "accepted": not report.refused,
        "code": "" if error is None else error.code.name,
        "message": "" if error is None else error.message,
        "entry": report.entry,
        "functions": report.functions,
        "imports": [f"{module}.{name}" for module, name in report.imports],
        "recursive": report.recursive,
        "max_call_depth": report.max_call_depth,
        "loops_without_checkpoint": report.loops_without_checkpoint,
        "checks": [
            {
                "name": name,
                "outcome": outcome,
                "findings": [
                    {"refused": one.refused, "reason": one.reason, "offset": one.offset, "hint": one.hint}
                    | {"threat": one.threat}
                    for one in findings
                ],
            }
            for name, (outcome, findings) in outcomes.items()
        ],
    }


def _facts(report: Report) -> str:
    if not report.entry:
        return ""
    facts = [f"a {report.entry}", f"{report.functions} functions", f"{len(report.imports)} imports"]
    if report.recursive:
        facts.append("recursive")
    elif report.max_call_depth is not None:
        facts.append(f"calls at most {report.max_call_depth} deep")
    return f" ({', '.join(facts)})"


def _run(arguments: argparse.Namespace, code: bytes) -> int:
    from ringfence.agent.errors import SandboxError
    from ringfence.agent.sandbox.levels import Level, ResultType
    from ringfence.agent.sandbox.port import GuestJob

    limits = _limits(
        arguments,
        gpu_memory=arguments.gpu_memory,
        deadline=arguments.deadline,
        output=arguments.output_limit,
        units=arguments.units,
    )
    given = b"" if arguments.input is None else _input(arguments.input)
    if arguments.output is not None:
        _check_writable(arguments.output)
    try:
        job = GuestJob(code, given, limits, Level(arguments.level), ResultType(arguments.result))
        outcome = _execute(job, frozenset(arguments.accept_missing))
    except SandboxError as error:
        return _failed(arguments, error)
    if arguments.output is not None:
        arguments.output.write_bytes(outcome.output)
    _ended_well(arguments, outcome)
    return 0


def _check_writable(path: Path) -> None:
    """Raises `OSError` where no output can be written, and leaves everything as it is."""
    new = not path.exists()
    # A fifo's reader would take this for all that comes.
    if new or path.is_file() or path.is_dir():
        with path.open("ab"):
            pass
    if new:
        path.unlink()


def _input(path: Path) -> bytes:
    from ringfence.errors import BAD_ARGUMENT, UsageError

    given = _read(path, MAX_INPUT_BYTES + 1)
    if len(given) > MAX_INPUT_BYTES:
        raise UsageError(
            BAD_ARGUMENT,
            f"The input has more than {MAX_INPUT_BYTES} bytes.",
            field="--input",
            hint="Split the work into several jobs.",
        )
    return given


def _ended_well(arguments: argparse.Namespace, outcome: Outcome) -> None:
    from ringfence.terminal import print_json

    if arguments.json:
        print_json(_result("ok", outcome.output, outcome.usage))
        return
    if arguments.output is None:
        sys.stdout.buffer.write(outcome.output)
        sys.stdout.buffer.flush()
    usage = outcome.usage
    sys.stderr.write(
        f"ringfence sandbox: ok, {len(outcome.output)} bytes of output, {usage.wall_ms:.1f} ms "
        f"({usage.cpu_ms:.1f} ms of processor time), {usage.peak_memory_bytes} bytes of memory\n"
    )


def _failed(arguments: argparse.Namespace, error: SandboxError) -> int:
    from ringfence.agent.sandbox.port import GuestError, Usage
    from ringfence.terminal import print_json, printable

    usage = error.usage if isinstance(error, GuestError) else Usage(0.0, 0.0, 0)
    if arguments.json:
        said = {"code": error.code.name, "message": error.message, "field": error.field, "hint": error.hint}
        print_json(_result(status(error), b"", usage) | said)
    sys.stderr.write(f"ringfence sandbox: {status(error)}, {printable(str(error))}\n")
    return 1


def status(error: SandboxError) -> str:
    """How a guest ended, in one word.

    `refused`: before it ran; `trap`: badly, by its own doing; `limit`, `deadline`: it wanted more than it may have;
    `failed`: by a fault of the host.
    """
    from ringfence.agent import errors
    from ringfence.errors import Kind

    match error.code:
        case errors.PROTECTION_MISSING | errors.MODULE_TOO_LARGE:
            return "refused"
        case errors.MONITOR_KILLED | errors.INPUT_TOO_LARGE:
            return "limit"
        case errors.SYSCALL_DENIED | errors.RESULT_INVALID:
            return "trap"
        case errors.BROKER_PROTOCOL:
            return "failed"
    match error.code.kind:
        case Kind.DEADLINE:
            return "deadline"
        case Kind.EXHAUSTED:
            return "limit"
        case Kind.INTERNAL | Kind.UNAVAILABLE | Kind.CANCELLED:
            return "failed"
        case Kind.INVALID:
            return "refused"
        case _:
            # What names the module was found in it by the checks.
            return "refused" if error.field == "module" else "trap"


def _result(status: str, output: bytes, usage: Usage) -> dict[str, object]:
    import base64
    import dataclasses

    return {
        "status": status,
        "code": "",
        "message": "",
        "field": "",
        "hint": "",
        "output_b64": base64.b64encode(output).decode("ascii"),
        **dataclasses.asdict(usage),
    }
