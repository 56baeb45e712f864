"""What the demo does, through the client library: the job, its reference by numpy, and the five refusals."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec
import msgspec.structs
import numpy as np

from ringfence.agent.api.jobs import JobLimits
from ringfence.client.client import DEFAULT_LIMITS, MIB, JobResult, Session
from ringfence.client.errors import RefusedError
from ringfence.client.guests import cache_folder, compile_guest, demo_guest
from ringfence.client.local import LocalInstallation
from ringfence.plugin.api import StageView

JOB_LIMITS: Final = JobLimits(
    memory_bytes=64 * MIB, gpu_memory_bytes=256 * MIB, deadline_ms=20_000, output_bytes=64 * 1024, qubits=2
)
_REGIONS: Final = ("north", "south", "east", "west")


class Showcase:
    """Runs the demo's jobs against a local installation; `tell` hears what is under way."""

    def __init__(self, local: LocalInstallation, tell: Callable[[str], None]) -> None:
        self._local = local
        self._tell = tell

    def run(self, content: bytes) -> dict[str, Any]:
        """The report of a whole run, for `--json`."""
        self._tell("Compiling the guests (a few seconds the first time)")
        guests = {name: compile_guest(demo_guest(name), cache_folder()) for name in ("analyse", "hog", "forever")}
        self._tell("Opening a session")
        session = self._local.client().open_session()
        self._tell("Running the job")
        submission = session.sign_job(guests["analyse"], content, JOB_LIMITS)
        headers = session.sign_request(submission)
        job = session.send(submission, headers)
        self._tell("Trying what must be refused")
        refusals = [
            self._tampered(session, submission),
            self._replayed(session, submission, headers),
            self._forbidden(session, guests["analyse"], content),
            self._hungry(session, guests["hog"]),
            self._endless(session, guests["forever"]),
        ]
        result = compare(job.output, content)
        return {
            "attestation": {"status": session.attestation.status.value, "sentence": self._local.host.sentence},
            "session": {
                "name": session.name,
                "expires_at": session.expires_at,
                "trace": _trace(session.parameters.trace),
            },
            "input": {"rows": result["guest"]["rows"], "bytes": len(content)},
            "result": result,
            "trace": _trace(job.trace),
            "limits": msgspec.to_builtins(job.receipt.limits),
            "receipt": _receipt(job),
            "refusals": refusals,
        }

    def _tampered(self, session: Session, submission: bytes) -> dict[str, Any]:
        headers = session.sign_request(submission)
        altered = submission[:-1] + bytes([submission[-1] ^ 1])
        return _refused(
            "a body changed on the way",
            "integrity",
            "integrity.digest_mismatch",
            lambda: session.send(altered, headers),
        )

    def _replayed(self, session: Session, submission: bytes, headers: dict[str, str]) -> dict[str, Any]:
        return _refused(
            "the same request again", "replay cache", "integrity.replayed", lambda: session.send(submission, headers)
        )

    def _forbidden(self, session: Session, module: bytes, content: bytes) -> dict[str, Any]:
        limits = msgspec.structs.replace(JOB_LIMITS, memory_bytes=4096 * MIB)
        return _refused(
            "4 GiB of memory", "policy", "policy.denied", lambda: session.submit(module, content, limits=limits)
        )

    def _hungry(self, session: Session, module: bytes) -> dict[str, Any]:
        limits = msgspec.structs.replace(DEFAULT_LIMITS, memory_bytes=32 * MIB)
        return _refused(
            "a guest that outgrows its memory",
            "sandbox memory limit",
            "sandbox.memory_limit",
            lambda: session.submit(module, b"", limits=limits),
        )

    def _endless(self, session: Session, module: bytes) -> dict[str, Any]:
        limits = msgspec.structs.replace(DEFAULT_LIMITS, deadline_ms=1000)
        return _refused(
            "a guest that never ends",
            "sandbox deadline",
            "sandbox.deadline",
            lambda: session.submit(module, b"", limits=limits),
        )


def made_up_rows(rows: int, seed: int) -> bytes:
    """A CSV with `rows` rows, the same for the same seed."""
    source = random.Random(seed)  # noqa: S311 - made-up data, no secret
    lines = ["id,amount_cents,region"]
    lines += [f"{row},{source.randint(-20_000, 900_000)},{source.choice(_REGIONS)}" for row in range(rows)]
    return ("\n".join(lines) + "\n").encode()


def compare(output: bytes, content: bytes) -> dict[str, Any]:
    """The guest's result beside the same result by numpy, which takes only the measured bits from the guest."""
    guest = json.loads(output)
    reference = reference_result(content, bit=guest["bit"])
    return {"guest": guest, "reference": reference, "matches_reference": guest == reference}


def reference_result(content: bytes, *, bit: int) -> dict[str, Any]:
    """What the guest must say of a CSV when its mid-circuit measurement gave `bit`."""
    lines = [line for line in content.decode().splitlines()[1:] if line.strip()]
    amounts = np.array([int(line.split(",")[1]) for line in lines], dtype=np.int64)
    total = int(amounts.sum())
    centre = _truncate(total, len(amounts))
    spread = abs(centre) // 2
    if bit:
        branch, changed = "abs_difference_i64", np.abs(amounts - centre)
    else:
        branch, changed = "clip_i64", np.clip(amounts, centre - spread, centre + spread)
    return {
        "rows": len(amounts),
        "sum": total,
        "sum_of_squares": int((amounts * amounts).sum()),
        "bit": bit,
        "branch": branch,
        "centre": centre,
        "spread": spread,
        "branch_sum": int(changed.sum()),
        # After the correction by the measured bit the second qubit is in |+>, so basis X always gives 0.
        "second_bit": 0,
    }


def _truncate(total: int, count: int) -> int:
    """C's division: towards zero."""
    quotient = abs(total) // count
    return quotient if total >= 0 else -quotient


def _refused(name: str, stopped_by: str, expected: str, attempt: Callable[[], JobResult]) -> dict[str, Any]:
    try:
        attempt()
    except RefusedError as refusal:
        code = refusal.code.name
        message, decision, trace = refusal.message, refusal.decision_id, _trace(refusal.trace)
    else:
        code, message, decision, trace = "", "It was let through.", "", []
    return {
        "name": name,
        "stopped_by": stopped_by,
        "code": code,
        "expected": expected,
        "held": code == expected,
        "message": message,
        "decision_id": decision,
        "trace": trace,
    }


def _trace(trace: tuple[StageView, ...]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(view) for view in trace]


def _receipt(job: JobResult) -> dict[str, Any]:
    """The receipt; that a `JobResult` exists means that the client library verified it."""
    shown: dict[str, Any] = {"verified": True}
    for name in job.receipt.__struct_fields__:
        value = getattr(job.receipt, name)
        shown[name] = value.hex() if isinstance(value, bytes) else msgspec.to_builtins(value)
    return shown
