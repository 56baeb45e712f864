"""Attesters against real software TPMs: real quotes, real attacks, and every way in which a TPM can fail."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence.attestation import (
    AttestationError,
    Attester,
    NoEvidence,
    NoTpmAttester,
    ReferenceValues,
    Status,
    TpmAttester,
    TpmEvidence,
    ak_name,
    appraise,
    discover_tcti,
    evidence,
    read_ak,
    tpm_worker,
)
from ringfence.attestation.evidence import Pcr, qualifying_data
from ringfence.attestation.tpm_messages import AkRequest, Answer, Refusal
from ringfence.crypto import key_id
from tests.attestation.conftest import workers

NOW = 1_700_000_000
NOBODY = 65534


async def quote(tcti: str, nonce: bytes, agent_key: bytes) -> TpmEvidence:
    collected = await TpmAttester(tcti).collect(nonce, agent_key)
    assert isinstance(collected, TpmEvidence)
    return collected


def boot_of(collected: TpmEvidence) -> dict[int, frozenset[str]]:
    return {pcr.index: frozenset({pcr.value.hex()}) for pcr in collected.pcrs}


async def references_of(tcti: str, agent_key: bytes, pcrs: dict[int, frozenset[str]]) -> ReferenceValues:
    return ReferenceValues({key_id(agent_key): frozenset({ak_name(await read_ak(tcti))})}, pcrs)


def refusal(collected: evidence.Evidence, references: ReferenceValues, nonce: bytes, agent_key: bytes) -> str:
    with pytest.raises(AttestationError) as refused:
        appraise(collected, nonce=nonce, agent_key=agent_key, references=references, now=NOW)
    return refused.value.code.name.removeprefix("attestation.")


@pytest.fixture(params=["tpm", "none"])
def attester(request: pytest.FixtureRequest, tcti: str) -> Attester:
    return TpmAttester(tcti) if request.param == "tpm" else NoTpmAttester("This host has no TPM.")


class TestEveryAttester:
    """The contract of the port."""

    async def test_evidence_crosses_the_wire_and_is_appraised(
        self, attester: Attester, tcti: str, nonce: bytes, agent_key: bytes
    ) -> None:
        collected = evidence.decode(evidence.encode(await attester.collect(nonce, agent_key)))
        references = await references_of(tcti, agent_key, {})
        appraisal = appraise(collected, nonce=nonce, agent_key=agent_key, references=references, now=NOW)
        assert appraisal.status is (Status.NONE if isinstance(collected, NoEvidence) else Status.WARNING)

    async def test_evidence_answers_one_nonce_for_one_agent(
        self, attester: Attester, tcti: str, nonce: bytes, agent_key: bytes, other_agent_key: bytes
    ) -> None:
        collected = await attester.collect(nonce, agent_key)
        pinned = frozenset({ak_name(await read_ak(tcti))})
        references = ReferenceValues({key_id(agent_key): pinned, key_id(other_agent_key): pinned})
        assert refusal(collected, references, os.urandom(32), agent_key) == "nonce_mismatch"
        assert refusal(collected, references, nonce, other_agent_key) == "agent_key_mismatch"
        assert refusal(collected, ReferenceValues({}), nonce, agent_key) == "agent_unknown"

    async def test_a_weak_nonce_is_refused(self, attester: Attester, agent_key: bytes) -> None:
        with pytest.raises(AttestationError) as refused:
            await attester.collect(b"short", agent_key)
        assert refused.value.code.name == "attestation.nonce_size"


async def test_a_real_quote_of_a_known_boot_is_affirmed(tcti: str, nonce: bytes, agent_key: bytes) -> None:
    collected = await quote(tcti, nonce, agent_key)
    references = await references_of(tcti, agent_key, boot_of(collected))
    appraisal = appraise(collected, nonce=nonce, agent_key=agent_key, references=references, now=NOW)
    assert appraisal.status is Status.AFFIRMING
    # Under the owner hierarchy a TPM would show obfuscated counters and firmware version instead.
    assert appraisal.quote is not None
    assert appraisal.quote.reset_count < 10


async def test_concurrent_quotes_take_turns(tcti: str, agent_key: bytes) -> None:
    attester = TpmAttester(tcti)
    nonces = [os.urandom(32) for _ in range(4)]
    collected = await asyncio.gather(*(attester.collect(nonce, agent_key) for nonce in nonces))
    assert [one.nonce for one in collected] == nonces


async def test_a_quote_of_another_tpm_is_refused(tcti: str, other_tcti: str, nonce: bytes, agent_key: bytes) -> None:
    foreign = await quote(other_tcti, nonce, agent_key)
    references = await references_of(tcti, agent_key, {})
    assert refusal(foreign, references, nonce, agent_key) == "ak_unknown"
    dressed_up = msgspec.structs.replace(foreign, ak_public=await read_ak(tcti))
    assert refusal(dressed_up, references, nonce, agent_key) == "signature_invalid"


async def test_a_replayed_quote_is_refused(tcti: str, nonce: bytes, agent_key: bytes) -> None:
    old = await quote(tcti, os.urandom(32), agent_key)
    references = await references_of(tcti, agent_key, {})
    assert refusal(old, references, nonce, agent_key) == "nonce_mismatch"
    assert refusal(msgspec.structs.replace(old, nonce=nonce), references, nonce, agent_key) == "quote_unbound"


async def test_a_tampered_pcr_is_refused(tcti: str, nonce: bytes, agent_key: bytes) -> None:
    collected = await quote(tcti, nonce, agent_key)
    references = await references_of(tcti, agent_key, boot_of(collected))
    tampered = msgspec.structs.replace(collected, pcrs=(Pcr(0, b"\xaa" * 32), *collected.pcrs[1:]))
    assert refusal(tampered, references, nonce, agent_key) == "pcr_digest"


async def test_a_changed_boot_is_refused_and_a_reboot_is_counted(
    start_swtpm: Callable[[], Any], tss: Any, nonce: bytes, agent_key: bytes
) -> None:
    swtpm = start_swtpm()
    tcti = swtpm.start()
    good = await quote(tcti, nonce, agent_key)
    references = await references_of(tcti, agent_key, boot_of(good))
    with tss.ESAPI(tcti) as tpm:
        tpm.pcr_event(tss.ESYS_TR.PCR4, b"another boot loader")
    assert refusal(await quote(tcti, nonce, agent_key), references, nonce, agent_key) == "pcr_unexpected"
    swtpm.stop()
    rebooted = await quote(swtpm.start(), nonce, agent_key)
    before, after = (
        appraise(one, nonce=nonce, agent_key=agent_key, references=references, now=NOW).quote
        for one in (good, rebooted)
    )
    assert before is not None
    assert after is not None
    assert after.reset_count == before.reset_count + 1


async def test_a_key_that_is_not_restricted_forges_a_quote_that_only_its_attributes_betray(
    tcti: str, tss: Any, nonce: bytes, agent_key: bytes
) -> None:
    honest = await quote(tcti, nonce, agent_key)
    with tss.ESAPI(tcti) as tpm:
        attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign"
        template = tss.TPM2B_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=attributes)
        key, public, *_ = tpm.create_primary(
            tss.TPM2B_SENSITIVE_CREATE(), template, primary_handle=tss.ESYS_TR.ENDORSEMENT
        )
        binding = tss.TPM2B_DATA(qualifying_data(nonce, agent_key))
        own, _ = tpm.quote(key, "sha256:0,1,2,3,4,5,6,7", qualifying_data=binding)
        clean = tuple(Pcr(index, b"\x11" * 32) for index in range(8))
        forged = bytes(own)[:-32] + hashlib.sha256(b"\x11" * 32 * 8).digest()
        scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)
        ticket = tss.TPMT_TK_HASHCHECK(tag=tss.TPM2_ST.HASHCHECK, hierarchy=tss.TPM2_RH.NULL)
        signature = tpm.sign(key, tss.TPM2B_DIGEST(hashlib.sha256(forged).digest()), scheme, ticket)
        tpm.flush_context(key)
    marshalled = public.publicArea.marshal()
    forgery = msgspec.structs.replace(
        honest, quote=forged, signature=signature.marshal(), ak_public=marshalled, pcrs=clean
    )
    references = ReferenceValues({key_id(agent_key): frozenset({ak_name(marshalled)})}, boot_of(forgery))
    assert refusal(forgery, references, nonce, agent_key) == "ak_attributes"


async def test_a_tpm_without_a_sha256_bank_is_refused(
    start_swtpm: Callable[[], Any], tss: Any, nonce: bytes, agent_key: bytes
) -> None:
    swtpm = start_swtpm()
    with tss.ESAPI(swtpm.start()) as tpm:
        nothing, _ = tss.TPML_PCR_SELECTION.unmarshal(bytes.fromhex("00000001000b03000000"))
        tpm.pcr_allocate(nothing)
        tpm.shutdown(tss.TPM2_SU.CLEAR)
    swtpm.stop()
    tcti = swtpm.start()
    collected = await quote(tcti, nonce, agent_key)
    references = await references_of(tcti, agent_key, {})
    assert refusal(collected, references, nonce, agent_key) == "pcr_selection_empty"


async def failure(tcti: str, deadline_s: float = 10.0) -> str:
    with pytest.raises(AttestationError) as failed:
        await read_ak(tcti, deadline_s)
    assert failed.value.hint or failed.value.message
    return failed.value.code.name.removeprefix("attestation.")


async def test_each_way_of_not_being_there_has_its_own_code(start_swtpm: Callable[[], Any], tmp_path: Path) -> None:
    assert await failure(f"device:{tmp_path}/tpmrm0") == "tpm_missing"
    assert await failure(f"swtpm:path={tmp_path}/sock") == "tpm_missing"
    assert await failure("device:/dev/null") == "tpm_unreachable"
    assert await failure(f"device:{tmp_path}") == "tpm_unreachable"
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(dead))
    assert await failure(f"swtpm:path={dead}") == "tpm_unreachable"
    assert await failure(start_swtpm().start(flags="not-need-init")) == "tpm_not_started"


@pytest.mark.parametrize("tcti", ["", "libevil.so:x", "/tmp/evil.so", "device:tpm0", "swtpm:path=/a,port=1", "mssim:"])
async def test_an_address_that_is_no_tpm_loads_nothing(tcti: str) -> None:
    assert await failure(tcti) == "tpm_address"


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """For root, the rights of nobody; an ordinary user keeps its own."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_tpm_that_this_user_may_not_open_is_denied(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as tpm:
        tpm.bind(str(path))
    path.chmod(0)
    with ordinary_user(), pytest.raises(AttestationError) as denied:
        tpm_worker.check_address(f"swtpm:path={path}")
    assert denied.value.code.name == "attestation.tpm_denied"
    assert "tss" in denied.value.hint


async def test_a_hung_tpm_costs_its_deadline_and_leaves_no_child(
    silent_tpm: str, nonce: bytes, agent_key: bytes
) -> None:
    started = time.monotonic()
    with pytest.raises(AttestationError) as hung:
        await TpmAttester(silent_tpm, deadline_s=1.5).collect(nonce, agent_key)
    assert hung.value.code.name == "attestation.tpm_hung"
    assert 1.5 <= time.monotonic() - started < 3.5
    assert not workers()


async def test_a_hung_tpm_does_not_make_the_next_caller_wait_longer(
    silent_tpm: str, nonce: bytes, agent_key: bytes
) -> None:
    attester = TpmAttester(silent_tpm, deadline_s=1.0)
    started = time.monotonic()
    outcomes = await asyncio.gather(*(attester.collect(nonce, agent_key) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AttestationError] * 3
    assert time.monotonic() - started < 3.0
    assert not workers()


async def test_a_cancelled_attestation_leaves_no_child(silent_tpm: str, nonce: bytes, agent_key: bytes) -> None:
    task = asyncio.create_task(TpmAttester(silent_tpm).collect(nonce, agent_key))
    for _ in range(500):
        if workers():
            break
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not workers()


def ask_worker(code: str, tcti: str, lifetime_s: float) -> subprocess.CompletedProcess[bytes]:
    request = msgspec.json.encode(AkRequest(tcti=tcti, lifetime_s=lifetime_s))
    return subprocess.run([sys.executable, "-I", "-c", code], input=request, capture_output=True, timeout=30)


RUN = "from ringfence.attestation.tpm_worker import main; raise SystemExit(main())"


def test_a_worker_whose_agent_died_ends_by_itself(silent_tpm: str) -> None:
    assert ask_worker(RUN, silent_tpm, 1.0).returncode == -signal.SIGALRM


def test_without_the_tpm_library_the_worker_names_the_extra(tcti: str) -> None:
    ended = ask_worker(f"import sys; sys.modules['tpm2_pytss'] = None; {RUN}", tcti, 10.0)
    answer: Answer = msgspec.json.decode(ended.stdout, type=Answer)
    assert isinstance(answer, Refusal)
    assert answer.code == "attestation.tpm_library_missing"
    assert "[tpm]" in answer.hint


def test_the_agent_side_does_not_load_the_tpm_library() -> None:
    check = "import sys, ringfence.attestation; raise SystemExit('tpm2_pytss' in sys.modules)"
    assert subprocess.run([sys.executable, "-I", "-c", check], timeout=30).returncode == 0


@pytest.mark.parametrize(
    ("rc", "code"),
    [
        (0x000A000A, "tpm_unreachable"),  # TCTI: IO failure
        (0x100, "tpm_not_started"),  # TPM_RC_INITIALIZE
        (0x921, "tpm_locked_out"),  # TPM_RC_LOCKOUT
        (0x902, "tpm_busy"),  # TPM_RC_OBJECT_MEMORY: its slots are exhausted
        (0x000B0922, "tpm_busy"),  # TPM_RC_RETRY, from the resource manager
        (0x908, "tpm_busy"),  # TPM_RC_YIELDED
        (0x920, "tpm_busy"),  # TPM_RC_NV_RATE
        (0x101, "tpm_failed"),  # TPM_RC_FAILURE
        (0x00070921, "tpm_failed"),  # the same number from another layer is another failure
    ],
)
def test_each_response_code_is_explained(rc: int, code: str) -> None:
    assert tpm_worker.explain(rc).code.name == f"attestation.{code}"


@pytest.mark.parametrize(
    ("environment", "present", "tcti"),
    [
        ({}, False, None),
        ({}, True, "device:/dev/tpmrm0"),
        ({"RINGFENCE_TPM_TCTI": "swtpm:path=/s"}, True, "swtpm:path=/s"),
        ({"RINGFENCE_TPM_TCTI": ""}, False, None),
    ],
)
def test_the_tpm_is_found_by_configuration_or_by_its_device(
    environment: dict[str, str], present: bool, tcti: str | None
) -> None:
    assert discover_tcti(environment, lambda path: present and path == "/dev/tpmrm0") == tcti
