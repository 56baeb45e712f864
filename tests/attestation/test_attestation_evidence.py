"""Evidence on the wire: what is encoded comes back, and no bytes at all can do more than be refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.attestation import evidence, tpm_structures
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.evidence import NoEvidence, TpmEvidence
from ringfence.crypto import key_id


def test_both_kinds_of_evidence_survive_the_wire(
    forge: Callable[..., TpmEvidence], nonce: bytes, agent_key: bytes
) -> None:
    none = NoEvidence(nonce=nonce, agent_key_id=key_id(agent_key), reason="no TPM")
    for collected in (forge(nonce, agent_key), none):
        assert evidence.decode(evidence.encode(collected)) == collected


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"null",
        b'{"kind":"none"}',
        b'{"kind":"sgx","nonce":"","agent_key_id":"","reason":"x"}',
        b'{"kind":"none","nonce":"AAAAAAAAAAAAAAAAAAAAAA==","agent_key_id":"me","reason":"x"}',
        b"[" * 60_000,
        b'{"kind":"none","reason":"\xff"}',
    ],
)
def test_malformed_evidence_is_refused(encoded: bytes) -> None:
    with pytest.raises(AttestationError) as refused:
        evidence.decode(encoded)
    assert refused.value.code.name == "attestation.malformed"


def test_a_field_that_nobody_knows_is_refused(nonce: bytes, agent_key: bytes) -> None:
    encoded = evidence.encode(NoEvidence(nonce=nonce, agent_key_id=key_id(agent_key), reason="no TPM"))
    with pytest.raises(AttestationError):
        evidence.decode(encoded[:-1] + b',"trusted":true}')


def test_evidence_beyond_its_size_is_refused_unread() -> None:
    with pytest.raises(AttestationError) as refused:
        evidence.decode(b" " * (evidence.MAX_EVIDENCE + 1))
    assert refused.value.code.name == "attestation.too_large"


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_decoder(encoded: bytes) -> None:
    with pytest.raises(AttestationError):
        evidence.decode(encoded)


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_nonce_of_the_wrong_size_is_refused(size: int, agent_key: bytes) -> None:
    with pytest.raises(AttestationError) as refused:
        evidence.qualifying_data(bytes(size), agent_key)
    assert refused.value.code.name == "attestation.nonce_size"


def test_the_binding_cannot_shift_bytes_between_nonce_and_key() -> None:
    assert evidence.qualifying_data(bytes(16) + b"k", b"ey") != evidence.qualifying_data(bytes(16), b"key")


PARSERS = (tpm_structures.parse_quote, tpm_structures.parse_public, tpm_structures.parse_signature)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_tpm_parsers(encoded: bytes) -> None:
    for parse in PARSERS:
        try:
            parse(encoded)
        except AttestationError:
            continue


@given(data=st.data())
def test_a_mutated_structure_is_parsed_or_refused(data: st.DataObject, forge: Callable[..., TpmEvidence]) -> None:
    collected = forge(bytes(32), b"agent")
    fields = (collected.quote, collected.ak_public, collected.signature)
    for parse, field in zip(PARSERS, fields, strict=True):
        at = data.draw(st.integers(0, len(field) - 1))
        mutated = field[:at] + data.draw(st.binary(max_size=3)) + field[at + data.draw(st.integers(0, 3)) :]
        try:
            parse(mutated)
        except AttestationError:
            continue


def test_a_structure_cut_short_or_followed_by_more_is_refused(forge: Callable[..., TpmEvidence]) -> None:
    collected = forge(bytes(32), b"agent")
    fields = (collected.quote, collected.ak_public, collected.signature)
    for parse, field in zip(PARSERS, fields, strict=True):
        parse(field)
        for cut in range(len(field)):
            with pytest.raises(AttestationError):
                parse(field[:cut])
        with pytest.raises(AttestationError) as refused:
            parse(field + b"\x00")
        assert refused.value.code.name == "attestation.malformed"
