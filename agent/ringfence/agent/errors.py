"""The agent's error codes and its error families."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class SandboxError(RingfenceError):
    """A guest was refused, stopped, or broke its contract."""


# The guest's module and its run.
MODULE_INVALID = Code("sandbox.module_invalid", Kind.UNPROCESSABLE)
MODULE_TOO_LARGE = Code("sandbox.module_too_large", Kind.TOO_LARGE)
MODULE_REFUSED = Code("sandbox.module_refused", Kind.UNPROCESSABLE)
COMPONENT_GIVEN = Code("sandbox.component_given", Kind.UNPROCESSABLE)
ENTRY_POINT_MISSING = Code("sandbox.entry_point_missing", Kind.UNPROCESSABLE)
ENTRY_POINT_TYPE = Code("sandbox.entry_point_type", Kind.UNPROCESSABLE)
IMPORT_UNKNOWN = Code("sandbox.import_unknown", Kind.UNPROCESSABLE)
GUEST_TRAP = Code("sandbox.trap", Kind.UNPROCESSABLE)
GUEST_EXIT = Code("sandbox.exit_status", Kind.UNPROCESSABLE)
GUEST_ARGUMENT = Code("sandbox.bad_argument", Kind.UNPROCESSABLE)
MEMORY_LIMIT = Code("sandbox.memory_limit", Kind.EXHAUSTED)
DEADLINE = Code("sandbox.deadline", Kind.DEADLINE)
OUTPUT_LIMIT = Code("sandbox.output_limit", Kind.EXHAUSTED)
RESULT_INVALID = Code("sandbox.result_invalid", Kind.UNPROCESSABLE)
INPUT_TOO_LARGE = Code("sandbox.input_too_large", Kind.TOO_LARGE)
CANCELLED = Code("sandbox.cancelled", Kind.CANCELLED)
SYSCALL_DENIED = Code("sandbox.syscall_denied", Kind.DENIED)
WORKER_LOST = Code("sandbox.worker_lost", Kind.INTERNAL)
PROCESS_STUCK = Code("sandbox.process_stuck", Kind.UNAVAILABLE)
LOCKDOWN_FAILED = Code("sandbox.lockdown_failed", Kind.UNAVAILABLE)
PROTECTION_MISSING = Code("sandbox.protection_missing", Kind.UNAVAILABLE)
MONITOR_KILLED = Code("sandbox.monitor_killed", Kind.DENIED)
BROKER_PROTOCOL = Code("sandbox.broker_protocol", Kind.UNPROCESSABLE)
LIMIT_OUT_OF_RANGE = Code("sandbox.limit_out_of_range", Kind.INVALID)

# Devices, behind the broker.
DEVICE_FAULT = Code("gpu.fault", Kind.UNPROCESSABLE)
DEVICE_ARGUMENT = Code("gpu.bad_argument", Kind.UNPROCESSABLE)
KERNEL_UNKNOWN = Code("gpu.kernel_unknown", Kind.UNPROCESSABLE)
QUANTUM_DISABLED = Code("quantum.disabled", Kind.DENIED)
QUANTUM_ARGUMENT = Code("quantum.bad_argument", Kind.UNPROCESSABLE)
