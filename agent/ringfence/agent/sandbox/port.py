"""The sandbox's port: what a job is, what it may use, and what comes back.

Values are validated when built; `Sandbox` is what the agent needs of any adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ringfence.agent.errors import LIMIT_OUT_OF_RANGE, MODULE_TOO_LARGE, SandboxError
from ringfence.agent.sandbox.levels import Level, ResultType
from ringfence.errors import Code

MAX_MODULE_BYTES = 16 * 1024 * 1024

# The lowest and highest value of each limit, whatever a policy or a caller asks for.
BOUNDS: dict[str, tuple[int, int]] = {
    "memory_bytes": (1, 4 * 1024**3),
    "gpu_memory_bytes": (1, 1024**4),
    "deadline_ms": (1, 24 * 60 * 60 * 1000),
    "output_bytes": (1, 256 * 1024 * 1024),
    "qubits": (0, 24),
    "compute_units": (1, 64),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may use.

    Raises `SandboxError` (`sandbox.limit_out_of_range`, with the field) when built outside `BOUNDS`.
    `memory_bytes` is the guest's linear memory, `gpu_memory_bytes` its device pool, `deadline_ms` its wall time from
    the start of its processes to its answer, `output_bytes` its standard output, `qubits` its quantum state; 0 qubits
    means no quantum device. `compute_units` is its share of thread time, of 64.
    """

    memory_bytes: int
    gpu_memory_bytes: int
    deadline_ms: int
    output_bytes: int
    qubits: int
    compute_units: int = 64

    def __post_init__(self) -> None:
        for name, (lowest, highest) in BOUNDS.items():
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= highest:
                raise SandboxError(
                    LIMIT_OUT_OF_RANGE,
                    f"The limit {name} is {value!r}, not a whole number from {lowest} to {highest}.",
                    field=name,
                    hint="Ask for a limit inside that range.",
                )


@dataclass(frozen=True, slots=True)
class GuestJob:
    """A guest's module (WebAssembly bytes), its input, its limits, how it is checked and what its output is.

    `job_id` is what it is known by to whoever asks what runs.
    """

    module: bytes
    input: bytes
    limits: Limits
    level: Level = Level.HIGH
    result: ResultType = ResultType.BYTES
    job_id: str = ""

    def __post_init__(self) -> None:
        if len(self.module) > MAX_MODULE_BYTES:
            raise SandboxError(
                MODULE_TOO_LARGE,
                f"The module has {len(self.module)} bytes, more than {MAX_MODULE_BYTES}.",
                field="module",
                hint="Strip its debug information, or pass data as input instead of embedding it.",
            )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job used.

    `wall_ms` (until the worker ended or was killed) and `cpu_ms` (worker and broker together, of those that ended) come
    from the kernel. `peak_memory_bytes` is the guest's linear memory at its largest, as its worker counted it: one that
    a guest took over may say anything, but nothing beyond the limit is believed. The counters come from the device
    broker, `peak_gpu_bytes` at most the limit, and stand where they stood when it was killed; `checkpoints` alone is
    the worker's word too. `forged_batches` says how often the worker broke the rules of its ring, which no guest can
    make it do that has not taken it over: whatever else came of the job, that was an attempt to get out.
    """

    wall_ms: float
    cpu_ms: float
    peak_memory_bytes: int
    commands: int = 0
    launches: int = 0
    gates: int = 0
    measurements: int = 0
    checkpoints: int = 0
    peak_gpu_bytes: int = 0
    forged_batches: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A guest that ended well: its standard output, and what it used."""

    output: bytes
    usage: Usage


class GuestError(SandboxError):
    """A guest was refused, stopped, or broke its contract; `usage` says what it had used by then."""

    def __init__(self, code: Code, message: str, usage: Usage, *, field: str = "", hint: str = "") -> None:
        super().__init__(code, message, field=field, hint=hint)
        self.usage = usage


class Sandbox(Protocol):
    """Runs guests, each on its own."""

    async def run(self, job: GuestJob) -> Outcome:
        """Run `job` to its end.

        Raises `SandboxError` when it does not end well; it is a `GuestError` once a process was started for it.
        Cancelling the awaiting task kills the job and leaves no process, descriptor or file.
        """
        ...
