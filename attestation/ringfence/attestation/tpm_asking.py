"""Asking the TPM worker from a thread: one request to one child process, which is dead when the answer is here."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from ringfence.attestation import errors
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.tpm_messages import Answer, Refusal, Request

DEFAULT_DEADLINE_S: Final = 10.0
COMMAND: Final = (sys.executable, "-I", "-m", "ringfence.attestation.tpm_worker")
# The stack logs to stderr by default, and every failure is reported through its code instead.
ENVIRONMENT: Final = {"TSS2_LOG": "all+NONE"}
REAP_S: Final = 2.0
"""A process stuck inside a driver dies only when the driver returns; nobody waits longer than this for that."""
GRACE_S: Final = 1.0
"""How much longer a worker lives than its asker waits: only where the asker died does it have to end itself."""


def ask(request: Request, deadline_s: float) -> Answer:
    """The worker's answer within `deadline_s`; raises `AttestationError`, attestation.tpm_hung among others.

    Blocks its thread. `Refusal` is an answer too; see `refused`.
    """
    with _worker() as process:
        try:
            answer, complaint = process.communicate(msgspec.json.encode(request), deadline_s)
        except subprocess.TimeoutExpired:
            raise hung(request.tcti, deadline_s) from None
    return decoded(answer, complaint, process.returncode)


@contextlib.contextmanager
def _worker() -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is killed at the end, whatever it does; `Popen`'s own end would wait for it without a limit."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT)  # noqa: S603
    except OSError as error:
        raise unstartable(error) from None
    with contextlib.ExitStack() as ends:
        for end in (process.stdin, process.stdout, process.stderr):
            if end is not None:
                ends.callback(end.close)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(REAP_S)


def decoded(answer: bytes, complaint: bytes, status: int | None) -> Answer:
    """The answer on a worker's standard output; attestation.tpm_failed, with its complaint, where there is none."""
    try:
        read: Answer = msgspec.json.decode(answer, type=Answer)
    except msgspec.MsgspecError:
        last_line = complaint.decode(errors="replace").strip().rpartition("\n")[2][-200:]
        raise AttestationError(
            errors.TPM_FAILED,
            f"The TPM worker ended with status {status} and no answer: {last_line or 'it said nothing'}.",
            hint="Try again; if it stays, run `ringfence doctor`.",
        ) from None
    return read


def unstartable(error: OSError) -> AttestationError:
    """The error for a worker that the system does not start."""
    return AttestationError(errors.TPM_FAILED, f"The TPM worker cannot be started: {error.strerror}.")


def hung(tcti: str, deadline_s: float) -> AttestationError:
    """The error for a worker that was killed at its deadline."""
    return AttestationError(
        errors.TPM_HUNG,
        f"The TPM at {tcti} gave no answer within {deadline_s:g} s, and its worker was killed.",
        hint="Try again; if the TPM stays silent, restart the software TPM or power-cycle the host.",
    )


def refused(answer: Answer) -> AttestationError:
    """The error for an answer that is not the one that was asked for."""
    if isinstance(answer, Refusal):
        for code in errors.TPM_CODES:
            if code.name == answer.code:
                return AttestationError(code, answer.message, hint=answer.hint)
    return AttestationError(errors.TPM_FAILED, "The TPM worker gave the answer to another question.")
