"""The verifier: perfect evidence passes, and evidence that is wrong in one thing is refused for that thing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.attestation import ReferenceValues, Status, ak_name, appraise, evidence
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.evidence import NoEvidence, Pcr, TpmEvidence
from ringfence.crypto import key_id

Forge = Callable[..., TpmEvidence]
NOW = 1_700_000_000
BOOT = {index: frozenset({(bytes([index]) * 32).hex()}) for index in range(8)}


def pinned(collected: TpmEvidence, agent_key: bytes, pcrs: dict[int, frozenset[str]] = BOOT) -> ReferenceValues:
    return ReferenceValues({key_id(agent_key): frozenset({ak_name(collected.ak_public)})}, pcrs)


def refusal(collected: evidence.Evidence, references: ReferenceValues, nonce: bytes, agent_key: bytes) -> str:
    with pytest.raises(AttestationError) as refused:
        appraise(collected, nonce=nonce, agent_key=agent_key, references=references, now=NOW)
    return refused.value.code.name.removeprefix("attestation.")


def test_a_known_boot_is_affirmed(forge: Forge, nonce: bytes, agent_key: bytes) -> None:
    collected = forge(nonce, agent_key)
    appraisal = appraise(collected, nonce=nonce, agent_key=agent_key, references=pinned(collected, agent_key), now=NOW)
    assert (appraisal.status, appraisal.status.score) == (Status.AFFIRMING, 90)
    assert appraisal.evidence_digest == evidence.digest(collected)
    assert appraisal.quote is not None
    assert (appraisal.quote.reset_count, appraisal.quote.restart_count, appraisal.quote.clock) == (3, 2, 7)
    assert appraisal.quote.clock_safe


@pytest.mark.parametrize("covered", [(), (0,), tuple(range(7))])
def test_a_boot_that_references_do_not_fully_cover_is_a_warning(
    forge: Forge, nonce: bytes, agent_key: bytes, covered: tuple[int, ...]
) -> None:
    collected = forge(nonce, agent_key)
    references = pinned(collected, agent_key, {index: BOOT[index] for index in covered})
    appraisal = appraise(collected, nonce=nonce, agent_key=agent_key, references=references, now=NOW)
    assert (appraisal.status, appraisal.status.score) == (Status.WARNING, 60)
    assert "PCR" in appraisal.reasons[-1]


def test_an_honest_none_is_none_for_a_pinned_agent_and_refused_for_another(
    nonce: bytes, agent_key: bytes, other_agent_key: bytes
) -> None:
    none = NoEvidence(nonce=nonce, agent_key_id=key_id(agent_key), reason="no TPM")
    references = ReferenceValues({key_id(agent_key): frozenset()})
    appraisal = appraise(none, nonce=nonce, agent_key=agent_key, references=references, now=NOW)
    assert (appraisal.status, appraisal.status.score, appraisal.quote) == (Status.NONE, 20, None)
    assert refusal(none, references, nonce, other_agent_key) == "agent_unknown"
    assert refusal(none, references, bytes(32), agent_key) == "nonce_mismatch"


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("ak_attributes", {"attributes": 0x00050472 & ~(1 << 16)}),  # not restricted: signs whatever it is given
    ("ak_attributes", {"attributes": 0x00050472 & ~(1 << 1)}),  # not fixedTPM
    ("ak_attributes", {"attributes": 0x00050472 & ~(1 << 4)}),  # not fixedParent
    ("ak_attributes", {"attributes": 0x00050472 & ~(1 << 5)}),  # not born in the TPM
    ("ak_attributes", {"attributes": 0x00050472 & ~(1 << 18)}),  # does not sign
    ("ak_attributes", {"attributes": 0x00050472 | 1 << 17}),  # decrypts
    ("ak_algorithm", {"name_algorithm": 0x000C}),
    ("ak_algorithm", {"scheme": b"\x00\x10"}),
    ("ak_algorithm", {"scheme": bytes.fromhex("0018000c")}),
    ("ak_algorithm", {"curve": 0x0004}),
    ("ak_algorithm", {"on_curve": False}),
    ("ak_algorithm", {"signature_scheme": bytes.fromhex("0018000c")}),
    ("ak_hierarchy", {"hierarchy": 0x40000001}),
    ("not_a_quote", {"magic": 0}),
    ("not_a_quote", {"kind": 0x8017}),
    ("signature_invalid", {"signed_by_another": True}),
    ("quote_unbound", {"bound_to": bytes(32)}),
    ("pcr_selection_empty", {"banks": ()}),
    ("pcr_selection_empty", {"banks": ((0x000B, b"\x00\x00\x00"),)}),
    ("pcr_bank", {"banks": ((0x0004, b"\xff\x00\x00"),)}),
    ("pcr_bank", {"banks": ((0x000B, b"\xff\x00\x00"), (0x0004, b"\xff\x00\x00"))}),
    ("pcr_too_few", {"banks": ((0x000B, b"\x7f\x00\x00"),)}),
    ("pcr_digest", {"shown": (b"\xaa" * 32, *(bytes([index]) * 32 for index in range(1, 8)))}),
    ("pcr_digest", {"indices": (1, 0, 2, 3, 4, 5, 6, 7)}),
    ("pcr_digest", {"values": (), "indices": ()}),
    ("pcr_unexpected", {"values": (b"\xaa" * 32, *(bytes([index]) * 32 for index in range(1, 8)))}),
]


@pytest.mark.parametrize(("code", "wrong"), WRONG)
def test_evidence_wrong_in_one_thing_is_refused_for_it(
    forge: Forge, nonce: bytes, agent_key: bytes, code: str, wrong: dict[str, Any]
) -> None:
    collected = forge(nonce, agent_key, **wrong)
    assert refusal(collected, pinned(collected, agent_key), nonce, agent_key) == code


def test_an_rsa_key_is_refused(forge: Forge, nonce: bytes, agent_key: bytes) -> None:
    collected = forge(nonce, agent_key)
    rsa = msgspec.structs.replace(collected, ak_public=b"\x00\x01" + collected.ak_public[2:])
    assert refusal(rsa, pinned(rsa, agent_key), nonce, agent_key) == "ak_algorithm"


def test_an_ak_that_nobody_pinned_is_refused(forge: Forge, nonce: bytes, agent_key: bytes) -> None:
    references = ReferenceValues({key_id(agent_key): frozenset({hashlib.sha256(b"another").hexdigest()})})
    assert refusal(forge(nonce, agent_key), references, nonce, agent_key) == "ak_unknown"


def test_the_tpm_of_one_host_does_not_vouch_for_the_agent_of_another(
    forge: Forge, nonce: bytes, agent_key: bytes, other_agent_key: bytes
) -> None:
    collected = forge(nonce, other_agent_key)
    references = ReferenceValues(
        {key_id(agent_key): frozenset({ak_name(collected.ak_public)}), key_id(other_agent_key): frozenset()}
    )
    assert refusal(collected, references, nonce, other_agent_key) == "ak_unknown"


def test_a_replayed_quote_is_refused_with_its_own_nonce_and_with_a_forged_one(
    forge: Forge, nonce: bytes, agent_key: bytes
) -> None:
    replayed = forge(bytes(32), agent_key)
    references = pinned(replayed, agent_key)
    assert refusal(replayed, references, nonce, agent_key) == "nonce_mismatch"
    disguised = msgspec.structs.replace(replayed, nonce=nonce)
    assert refusal(disguised, references, nonce, agent_key) == "quote_unbound"


def test_a_quote_for_another_agent_is_refused_openly_and_in_disguise(
    forge: Forge, nonce: bytes, agent_key: bytes, other_agent_key: bytes
) -> None:
    borrowed = forge(nonce, other_agent_key)
    references = pinned(borrowed, agent_key)
    assert refusal(borrowed, references, nonce, agent_key) == "agent_key_mismatch"
    disguised = msgspec.structs.replace(borrowed, agent_key_id=key_id(agent_key))
    assert refusal(disguised, references, nonce, agent_key) == "quote_unbound"


def test_a_reference_for_a_pcr_that_was_not_quoted_is_a_refusal(forge: Forge, nonce: bytes, agent_key: bytes) -> None:
    collected = forge(nonce, agent_key)
    references = pinned(collected, agent_key, BOOT | {14: frozenset({"00" * 32})})
    assert refusal(collected, references, nonce, agent_key) == "pcr_too_few"


@given(data=st.data())
def test_no_mutation_of_signed_evidence_passes_or_crashes(data: st.DataObject, forge: Forge) -> None:
    agent_key, nonce = b"agent", bytes(32)
    collected = forge(nonce, agent_key)
    name = data.draw(st.sampled_from(("quote", "signature", "pcrs")))
    if name == "pcrs":
        pcrs = list(collected.pcrs)
        at = data.draw(st.integers(0, len(pcrs) - 1))
        pcrs[at] = Pcr(pcrs[at].index, data.draw(st.binary(min_size=32, max_size=32)))
        mutated = msgspec.structs.replace(collected, pcrs=tuple(pcrs))
    else:
        field = bytearray(getattr(collected, name))
        field[data.draw(st.integers(0, len(field) - 1))] ^= data.draw(st.integers(1, 255))
        mutated = msgspec.structs.replace(collected, **{name: bytes(field)})
    if mutated != collected:
        assert refusal(mutated, pinned(collected, agent_key), nonce, agent_key)


@pytest.mark.parametrize(
    ("agents", "pcrs"),
    [
        ({"me": frozenset()}, {}),
        ({"rf1" + "A" * 43: frozenset({"AB" * 32})}, {}),
        ({}, {24: frozenset({"00" * 32})}),
        ({}, {0: frozenset()}),
        ({}, {0: frozenset({"00"})}),
    ],
)
def test_reference_values_that_could_never_match_are_refused(
    agents: dict[str, frozenset[str]], pcrs: dict[int, frozenset[str]]
) -> None:
    with pytest.raises(AttestationError) as refused:
        ReferenceValues(agents, pcrs)
    assert refused.value.code.name == "attestation.references_invalid"


def test_reference_values_do_not_change_with_the_mapping_they_came_from(agent_key: bytes) -> None:
    agents: dict[str, frozenset[str]] = {}
    references = ReferenceValues(agents)
    agents[key_id(agent_key)] = frozenset()
    assert not references.agents
