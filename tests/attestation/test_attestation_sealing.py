"""The TPM's sealer against real software TPMs: the contract of every sealer, and what only a TPM can refuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.attestation import AttestationError
from ringfence.attestation.sealing import TpmSealer
from ringfence.attestation.tpm_messages import SealRequest, UnsealAnswer
from ringfence.attestation.tpm_sessions import about_an_argument, failure
from ringfence.crypto import COMPOSITE
from ringfence.errors import UsageError
from ringfence.keystore import KeyStore, KeyStoreError
from ringfence.trust.keys import unarmour
from tests.foundation.keystore.keystore_sealer_contract import NOW, SealerContract

SECRET = b"a private key of this host"
AUTH = b"sixteen bytes at least"


def reason(sealer: TpmSealer, sealed: bytes, associated: bytes = b"") -> str:
    """What the one error says."""
    with pytest.raises(KeyStoreError) as caught:
        sealer.unseal(sealed, associated)
    assert caught.value.code.name == "keystore.unsealable"
    assert caught.value.hint
    return caught.value.message


def fields(sealed: bytes, **changed: Any) -> bytes:
    """The sealed file with other fields."""
    return msgspec.json.encode({**msgspec.json.decode(sealed), **changed})


class TestTpmSealer(SealerContract):
    @pytest.fixture
    def sealer(self, tcti: str) -> TpmSealer:
        return TpmSealer(tcti)

    @pytest.fixture
    def other_host(self, other_tcti: str) -> TpmSealer:
        return TpmSealer(other_tcti)


def test_another_tpm_and_a_cleared_one_say_that_they_are_not_the_one(
    start_swtpm: Callable[[], Any], tss: Any, other_tcti: str
) -> None:
    tcti = start_swtpm().start()
    sealer = TpmSealer(tcti)
    sealed = sealer.seal(SECRET, b"")
    assert "another TPM" in reason(TpmSealer(other_tcti), sealed)
    with tss.ESAPI(tcti) as tpm:
        tpm.clear(tss.ESYS_TR.LOCKOUT)
    assert "another TPM" in reason(sealer, sealed)


def test_a_reboot_opens_and_a_changed_boot_does_not(start_swtpm: Callable[[], Any], tss: Any) -> None:
    swtpm = start_swtpm()
    sealer = TpmSealer(swtpm.start(), pcrs=(0, 4, 7))
    sealed, unbound = sealer.seal(SECRET, b""), TpmSealer(sealer.tcti).seal(SECRET, b"")
    swtpm.stop()
    swtpm.start()
    # The file says what it is bound to, so the sealer's own setting does not matter here.
    assert TpmSealer(sealer.tcti).unseal(sealed, b"") == SECRET
    with tss.ESAPI(sealer.tcti) as tpm:
        tpm.pcr_event(tss.ESYS_TR.PCR9, b"not among them")
    assert sealer.unseal(sealed, b"") == SECRET
    with tss.ESAPI(sealer.tcti) as tpm:
        tpm.pcr_event(tss.ESYS_TR.PCR4, b"another boot loader")
    assert "PCRs 0, 4, 7" in reason(sealer, sealed)
    assert sealer.unseal(unbound, b"") == SECRET


def test_a_file_that_says_other_pcrs_than_it_is_bound_to_does_not_open(tcti: str) -> None:
    sealer = TpmSealer(tcti, pcrs=(0, 4))
    sealed = sealer.seal(SECRET, b"")
    for pcrs in ([], [0], [0, 5], [4, 0], [0, 0, 4]):
        reason(sealer, fields(sealed, pcrs=pcrs))
    assert "altered" in reason(sealer, fields(sealed, pcrs=[]))


def test_a_pcr_that_the_tpm_does_not_keep_seals_nothing(start_swtpm: Callable[[], Any], tss: Any) -> None:
    """A policy over a bank that is not allocated would always hold."""
    swtpm = start_swtpm()
    with tss.ESAPI(swtpm.start()) as tpm:
        nothing, _ = tss.TPML_PCR_SELECTION.unmarshal(bytes.fromhex("00000001000b03000000"))
        tpm.pcr_allocate(nothing)
        tpm.shutdown(tss.TPM2_SU.CLEAR)
    swtpm.stop()
    tcti = swtpm.start()
    with pytest.raises(AttestationError, match=r"attestation\.tpm_pcr_bank"):
        TpmSealer(tcti, pcrs=(0,)).seal(SECRET, b"")
    assert TpmSealer(tcti).unseal(TpmSealer(tcti).seal(SECRET, b""), b"") == SECRET


def test_only_the_authorisation_value_opens_what_was_sealed_with_it(tcti: str) -> None:
    sealer = TpmSealer(tcti, pcrs=(7,), auth=AUTH)
    sealed = sealer.seal(SECRET, b"")
    assert AUTH not in sealed
    for other in (b"", AUTH + b"\0", b"another one, as long"):
        assert "authorisation value" in reason(TpmSealer(tcti, auth=other), sealed)
    # Nor does one open what was sealed without.
    assert "authorisation value" in reason(sealer, TpmSealer(tcti).seal(SECRET, b""))
    assert sealer.unseal(sealed, b"") == SECRET


def test_wrong_values_do_not_lock_the_tpm(tcti: str, tss: Any) -> None:
    sealed = TpmSealer(tcti, auth=AUTH).seal(SECRET, b"")
    with tss.ESAPI(tcti) as tpm:
        before = lockout_counter(tss, tpm)
    reason(TpmSealer(tcti), sealed)
    with tss.ESAPI(tcti) as tpm:
        assert lockout_counter(tss, tpm) == before


def lockout_counter(tss: Any, tpm: Any) -> int:
    _, capability = tpm.get_capability(tss.TPM2_CAP.TPM_PROPERTIES, tss.TPM2_PT.LOCKOUT_COUNTER)
    return int(capability.data.tpmProperties[0].value)


def test_each_part_of_the_file_is_checked(tcti: str) -> None:
    sealer = TpmSealer(tcti)
    sealed, other = sealer.seal(SECRET, b""), sealer.seal(SECRET, b"")
    held = msgspec.json.decode(other)
    assert "altered" in reason(sealer, fields(sealed, public=held["public"]))
    assert "altered" in reason(sealer, fields(sealed, private=held["private"]))
    assert "altered" in reason(sealer, fields(sealed, private=held["private"], public=held["public"]))
    assert "altered" in reason(sealer, fields(sealed, ciphertext=held["ciphertext"]))
    assert "another TPM" in reason(sealer, fields(sealed, parent="AAs="))
    assert "altered" in reason(sealer, fields(sealed, public=""))
    assert "altered" in reason(sealer, fields(sealed, private=""))
    for changed in ({"version": 2}, {"pcrs": [16]}, {"more": 1}, {"ciphertext": None}, {"private": "A" * 2000}):
        assert "altered" in reason(sealer, fields(sealed, **changed))
    assert "altered" in reason(sealer, sealed.replace(b",", b", "))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_arbitrary_bytes_are_refused_before_a_tpm_is_asked(data: bytes) -> None:
    assert "altered" in reason(TpmSealer("swtpm:path=/nowhere"), data)


@pytest.mark.parametrize("pcrs", [(16,), (-1,), (7, 0), (0, 0), (23,)])
def test_pcrs_that_anybody_may_reset_or_that_are_no_list_are_refused(pcrs: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="PCRs are 0 to 15"):
        TpmSealer("swtpm:path=/nowhere", pcrs=pcrs)


def test_a_short_authorisation_value_is_refused_and_none_is_shown() -> None:
    with pytest.raises(UsageError, match="at least 16 bytes"):
        TpmSealer("swtpm:path=/nowhere", auth=b"short")
    assert "sixteen" not in repr(TpmSealer("swtpm:path=/nowhere", auth=AUTH))
    request = SealRequest(tcti="", lifetime_s=1.0, secret=SECRET, auth=AUTH, pcrs=())
    assert (repr(request), repr(UnsealAnswer(secret=SECRET))) == ("SealRequest(...)", "UnsealAnswer(...)")


def test_the_key_that_the_tpm_keeps_is_drawn_for_each_sealing(tcti: str) -> None:
    drawn = (bytes([number]) * 32 for number in itertools.count(1))
    sealer = TpmSealer(tcti, random=lambda size: next(drawn)[:size])
    one, two = (msgspec.json.decode(sealer.seal(SECRET, b""))["ciphertext"] for _ in range(2))
    assert one != two
    assert next(drawn) == bytes([3]) * 32


def test_a_tpm_out_of_reach_is_no_word_about_the_key(tcti: str, start_swtpm: Callable[[], Any]) -> None:
    sealed = TpmSealer(tcti).seal(SECRET, b"")
    stopped = start_swtpm()
    stopped.start()
    stopped.stop()
    away = TpmSealer(stopped.tcti)
    with pytest.raises(AttestationError, match=r"attestation\.tpm_(missing|unreachable)"):
        away.unseal(sealed, b"")
    with pytest.raises(AttestationError, match=r"attestation\.tpm_(missing|unreachable)"):
        away.seal(SECRET, b"")


def test_an_owner_with_an_authorisation_value_is_named(start_swtpm: Callable[[], Any], tss: Any) -> None:
    tcti = start_swtpm().start()
    with tss.ESAPI(tcti) as tpm:
        tpm.hierarchy_change_auth(tss.ESYS_TR.OWNER, b"mine")
    with pytest.raises(AttestationError, match=r"attestation\.tpm_owner"):
        TpmSealer(tcti).seal(SECRET, b"")


def test_nothing_stays_in_the_tpm(tcti: str, tss: Any) -> None:
    sealer = TpmSealer(tcti, pcrs=(0,), auth=AUTH)
    sealed = sealer.seal(SECRET, b"")
    sealer.unseal(sealed, b"")
    reason(TpmSealer(tcti), sealed)
    reason(sealer, fields(sealed, private=""))
    with tss.ESAPI(tcti) as tpm:
        for first in (0x80000000, 0x02000000):  # transient objects, loaded sessions
            _, capability = tpm.get_capability(tss.TPM2_CAP.HANDLES, first, 8)
            assert capability.data.handles.count == 0


def test_a_key_store_over_the_tpm_opens_after_a_power_cut(tmp_path: Path, start_swtpm: Callable[[], Any]) -> None:
    swtpm = start_swtpm()
    store = KeyStore(tmp_path, TpmSealer(swtpm.start(), pcrs=(0, 7)))
    key = store.generate("agent", COMPOSITE.name, now=NOW)
    swtpm.cut_power()
    swtpm.start()
    opened = store.open(key, now=NOW)
    assert opened.public == key.public
    raw = unarmour("RINGFENCE SEALED PRIVATE KEY", (tmp_path / key.file_name).read_bytes())
    assert opened.private not in raw


@pytest.mark.parametrize(
    ("rc", "number", "argument"),
    [
        (0x1DF, 0x9F, True),  # TPM_RC_INTEGRITY, parameter 1
        (0x9A2, 0xA2, True),  # TPM_RC_BAD_AUTH, session 1
        (0x98E, 0x8E, True),  # TPM_RC_AUTH_FAIL, session 1
        (0x18B, 0x8B, True),  # TPM_RC_HANDLE, handle 1
        (0x000B018B, 0x8B, True),  # the same from the resource manager
        (0x14C, 0x14C, False),  # TPM_RC_NV_DEFINED
        (0x921, 0x921, False),  # TPM_RC_LOCKOUT
        (0x000A000A, 0, False),  # TCTI: IO failure
        (0x00090006, 0, True),  # a structure that cannot be unmarshalled
    ],
)
def test_response_codes_are_told_apart(rc: int, number: int, argument: bool) -> None:
    assert (failure(rc), about_an_argument(rc)) == (number, argument)
