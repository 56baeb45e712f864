"""The attester: collects evidence about this host, from its TPM or as an honest `none`.

The TPM is touched only by a child process that is killed at its deadline, so a TPM that hangs, and some do, costs one
refused attestation and never the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from ringfence.attestation import errors
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.evidence import MAX_REASON, Evidence, NoEvidence, TpmEvidence, qualifying_data
from ringfence.attestation.tpm_messages import AkAnswer, AkRequest, Answer, QuoteAnswer, QuoteRequest, Refusal, Request
from ringfence.crypto import key_id

TCTI_VARIABLE = "RINGFENCE_TPM_TCTI"
DEFAULT_DEADLINE_S = 10.0
_DEVICE = "/dev/tpmrm0"
_WORKER = ("-I", "-m", "ringfence.attestation.tpm_worker")
# The stack logs to stderr by default, and every failure is reported through its code instead.
_WORKER_ENVIRONMENT = {"TSS2_LOG": "all+NONE"}
# A process stuck inside a driver dies only when the driver returns; the agent does not wait for that.
_REAP_S = 2.0
_GRACE_S = 1.0


class Attester(Protocol):
    """Collects fresh evidence; the agent has exactly one."""

    async def collect(self, nonce: bytes, agent_key: bytes) -> Evidence:
        """Evidence that binds the verifier's `nonce` (16 to 64 bytes) and the agent's public key."""
        ...


class NoTpmAttester:
    """Says honestly that this host cannot attest itself, and why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason[:MAX_REASON]

    async def collect(self, nonce: bytes, agent_key: bytes) -> Evidence:
        qualifying_data(nonce, agent_key)
        return NoEvidence(nonce=nonce, agent_key_id=key_id(agent_key), reason=self._reason)


class TpmAttester:
    """Collects evidence from the TPM at `tcti` (`device:/dev/tpmrm0` or `swtpm:path=/path`), within `deadline_s`."""

    def __init__(self, tcti: str, deadline_s: float = DEFAULT_DEADLINE_S) -> None:
        self._tcti = tcti
        self._deadline_s = deadline_s
        # A TPM does one thing at a time, and without a resource manager it has room for three keys only.
        self._one_at_a_time = asyncio.Lock()

    async def collect(self, nonce: bytes, agent_key: bytes) -> Evidence:
        """A quote; raises `AttestationError` with an `attestation.tpm_*` code that says what the TPM lacks."""
        request = QuoteRequest(
            tcti=self._tcti,
            lifetime_s=self._deadline_s + _GRACE_S,
            qualifying_data=qualifying_data(nonce, agent_key),
        )
        try:
            async with asyncio.timeout(self._deadline_s), self._one_at_a_time:
                answer = await _ask_worker(request)
        except TimeoutError:
            raise _hung(self._tcti, self._deadline_s) from None
        if not isinstance(answer, QuoteAnswer):
            raise _refused(answer)
        return TpmEvidence(
            nonce=nonce,
            agent_key_id=key_id(agent_key),
            quote=answer.quote,
            signature=answer.signature,
            ak_public=answer.ak_public,
            pcrs=answer.pcrs,
        )


async def read_ak(tcti: str, deadline_s: float = DEFAULT_DEADLINE_S) -> bytes:
    """The TPMT_PUBLIC of this host's AK, for an operator to pin with a verifier; raises as `TpmAttester.collect`."""
    try:
        async with asyncio.timeout(deadline_s):
            answer = await _ask_worker(AkRequest(tcti=tcti, lifetime_s=deadline_s + _GRACE_S))
    except TimeoutError:
        raise _hung(tcti, deadline_s) from None
    if not isinstance(answer, AkAnswer):
        raise _refused(answer)
    return answer.ak_public


def discover_tcti(environment: Mapping[str, str], exists: Callable[[str], bool]) -> str | None:
    """The address of this host's TPM: RINGFENCE_TPM_TCTI, else the kernel's resource manager, else None."""
    named = environment.get(TCTI_VARIABLE)
    if named:
        return named
    return f"device:{_DEVICE}" if exists(_DEVICE) else None


async def _ask_worker(request: Request) -> Answer:
    """One request to one child process, which is dead when this returns, however it returns."""
    process: asyncio.subprocess.Process | None = None
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *_WORKER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_WORKER_ENVIRONMENT,
        )
        answer, complaint = await process.communicate(msgspec.json.encode(request))
    except OSError as error:
        raise AttestationError(errors.TPM_FAILED, f"The TPM worker cannot be started: {error.strerror}.") from None
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REAP_S):
                    await process.wait()
    try:
        decoded: Answer = msgspec.json.decode(answer, type=Answer)
    except msgspec.MsgspecError:
        last_line = complaint.decode(errors="replace").strip().rpartition("\n")[2][-200:]
        raise AttestationError(
            errors.TPM_FAILED,
            f"The TPM worker ended with status {process.returncode} and no answer: {last_line or 'it said nothing'}.",
            hint="Try again; if it stays, run `ringfence doctor`.",
        ) from None
    return decoded


def _hung(tcti: str, deadline_s: float) -> AttestationError:
    return AttestationError(
        errors.TPM_HUNG,
        f"The TPM at {tcti} gave no answer within {deadline_s:g} s, and its worker was killed.",
        hint="Try again; if the TPM stays silent, restart the software TPM or power-cycle the host.",
    )


def _refused(answer: Answer) -> AttestationError:
    if isinstance(answer, Refusal):
        for code in errors.TPM_CODES:
            if code.name == answer.code:
                return AttestationError(code, answer.message, hint=answer.hint)
    return AttestationError(errors.TPM_FAILED, "The TPM worker gave the answer to another question.")
