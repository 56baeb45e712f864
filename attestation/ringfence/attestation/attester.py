"""The attester: collects evidence about this host, from its TPM or as an honest `none`.

The TPM is touched only by a child process that is killed at its deadline, so a TPM that hangs, and some do, costs one
refused attestation and never the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from ringfence.attestation import tpm_asking
from ringfence.attestation.evidence import MAX_REASON, Evidence, NoEvidence, TpmEvidence, qualifying_data
from ringfence.attestation.tpm_asking import DEFAULT_DEADLINE_S, GRACE_S, REAP_S
from ringfence.attestation.tpm_messages import AkAnswer, AkRequest, Answer, QuoteAnswer, QuoteRequest, Request
from ringfence.crypto import key_id

TCTI_VARIABLE = "RINGFENCE_TPM_TCTI"
_DEVICE = "/dev/tpmrm0"


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
            lifetime_s=self._deadline_s + GRACE_S,
            qualifying_data=qualifying_data(nonce, agent_key),
        )
        try:
            async with asyncio.timeout(self._deadline_s), self._one_at_a_time:
                answer = await _ask_worker(request)
        except TimeoutError:
            raise tpm_asking.hung(self._tcti, self._deadline_s) from None
        if not isinstance(answer, QuoteAnswer):
            raise tpm_asking.refused(answer)
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
            answer = await _ask_worker(AkRequest(tcti=tcti, lifetime_s=deadline_s + GRACE_S))
    except TimeoutError:
        raise tpm_asking.hung(tcti, deadline_s) from None
    if not isinstance(answer, AkAnswer):
        raise tpm_asking.refused(answer)
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
            *tpm_asking.COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=tpm_asking.ENVIRONMENT,
        )
        answer, complaint = await process.communicate(msgspec.json.encode(request))
    except OSError as error:
        raise tpm_asking.unstartable(error) from None
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REAP_S):
                    await process.wait()
    return tpm_asking.decoded(answer, complaint, process.returncode)
