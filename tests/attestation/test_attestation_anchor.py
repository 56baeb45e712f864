"""The TPM's counter against real software TPMs: the contract of every anchor, its file, its command, its attackers."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.attestation import AttestationError
from ringfence.attestation.anchoring import (
    FIRST_INDEX,
    LAST_INDEX,
    TpmCounterAnchor,
    define_anchor,
    open_anchor,
    remove_anchor,
)
from ringfence.audit import AuditError
from ringfence.errors import RingfenceError
from tests.audit.conftest import Ed25519Signer
from tests.audit.test_audit_anchor import AnchorContract, opened, run

Maker = Callable[..., TpmCounterAnchor]


@pytest.fixture(scope="module")
def indices() -> itertools.count[int]:
    return itertools.count(FIRST_INDEX, 2)


@pytest.fixture
def make(tcti: str, tmp_path: Path, tss: Any, indices: itertools.count[int]) -> Any:
    """Makes counters for a log and removes what is left of them at the end: a TPM has little room."""
    made = []

    def maker(log: str = "rf1test") -> TpmCounterAnchor:
        index = next(indices)
        made.append(index)
        return define_anchor(tmp_path / f"{index}.toml", log, tcti, random=os.urandom, index=index)

    yield maker
    with tss.ESAPI(tcti) as tpm:
        for index in made:
            for at in (index, index + 1):
                with contextlib.suppress(tss.TSS2_Exception):
                    tpm.nv_undefine_space(tpm.tr_from_tpmpublic(at))


class TestTpmCounter(AnchorContract):
    @pytest.fixture
    def signer(self) -> Ed25519Signer:
        return Ed25519Signer()

    @pytest.fixture
    def anchor(self, make: Maker) -> TpmCounterAnchor:
        return make()

    @pytest.fixture
    def another_anchor(self, make: Maker) -> TpmCounterAnchor:
        return make()


@pytest.fixture
def signer() -> Ed25519Signer:
    return Ed25519Signer()


def define_index(tss: Any, tpm: Any, index: int, size: int, auth: bytes = b"", nt: int = 0) -> Any:
    """An index as somebody else may define it; its handle."""
    attributes = tss.TPMA_NV.AUTHREAD | tss.TPMA_NV.AUTHWRITE | tss.TPMA_NV.NO_DA | nt << 4
    area = tss.TPMS_NV_PUBLIC(nvIndex=index, nameAlg=tss.TPM2_ALG.SHA256, attributes=attributes, dataSize=size)
    return tpm.nv_define_space(auth, tss.TPM2B_NV_PUBLIC(area))


def indices_in(tss: Any, tpm: Any) -> int:
    """How many indices the TPM has, from the first that a counter may have."""
    _, capability = tpm.get_capability(tss.TPM2_CAP.HANDLES, FIRST_INDEX, 254)
    return int(capability.data.handles.count)


def code(attempt: Callable[[], object]) -> str:
    with pytest.raises(RingfenceError) as caught:
        attempt()
    assert caught.value.message.endswith(".")
    return caught.value.code.name


def test_a_power_cut_takes_and_adds_nothing(start_swtpm: Callable[[], Any], tmp_path: Path) -> None:
    swtpm = start_swtpm()
    anchor = define_anchor(tmp_path / "anchor.toml", "rf1a", swtpm.start(), random=os.urandom)
    assert [anchor.increment(), anchor.increment()] == [1, 2]
    swtpm.cut_power()
    swtpm.start()
    assert [anchor.read(), anchor.increment()] == [2, 3]


def test_a_counter_counts_for_its_own_log_and_key_alone(make: Maker, tmp_path: Path) -> None:
    one, two = make("rf1one"), make("rf1two")
    one.increment()
    path = tmp_path / f"{one.index}.toml"
    assert open_anchor(path, "rf1one") == one
    assert code(open_anchor(path, "rf1two").increment) == "attestation.counter_foreign"
    mixed = TpmCounterAnchor(one.tcti, one.index, two.auth, "rf1one")
    assert code(mixed.read) == code(mixed.increment) == "attestation.counter_foreign"
    assert (one.read(), two.read()) == (1, 0)


def test_a_reset_counter_is_noticed(make: Maker, tmp_path: Path, tcti: str, signer: Ed25519Signer) -> None:
    """Removed and made anew at the same place, even under the same authorisation value."""
    anchor = make()
    folder, path = tmp_path / "log", tmp_path / f"{anchor.index}.toml"
    for _ in range(2):
        run(folder, signer, anchor)
    remove_anchor(anchor.index, tcti)
    assert code(lambda: opened(folder, signer, anchor)) == "attestation.counter_missing"
    path.unlink()
    again = define_anchor(path, anchor.log, tcti, random=lambda size: anchor.auth[:size], index=anchor.index)
    assert again == anchor
    assert again.read() == 0
    with pytest.raises(AuditError, match="not the counter of this log, or it was reset"):
        opened(folder, signer, again)


def test_a_cleared_tpm_is_noticed(start_swtpm: Callable[[], Any], tss: Any, tmp_path: Path) -> None:
    tcti = start_swtpm().start()
    anchor = define_anchor(tmp_path / "anchor.toml", "rf1a", tcti, random=os.urandom)
    with tss.ESAPI(tcti) as tpm:
        tpm.clear(tss.ESYS_TR.LOCKOUT)
    assert code(anchor.read) == "attestation.counter_missing"


def test_a_copy_of_the_disk_and_its_tpm_file_cuts_nothing_back(
    make: Maker, tmp_path: Path, signer: Ed25519Signer
) -> None:
    """The attacker has everything that was on the disk, the counter file too."""
    anchor = make(signer.key_id)
    host = tmp_path / "host"
    host.mkdir()
    shutil.copy(tmp_path / f"{anchor.index}.toml", host / "anchor.toml")

    def anchored() -> TpmCounterAnchor:
        return open_anchor(host / "anchor.toml", signer.key_id)

    run(host / "log", signer, anchored())
    shutil.copytree(host, tmp_path / "copy")
    run(host / "log", signer, anchored())
    shutil.rmtree(host)
    shutil.copytree(tmp_path / "copy", host)
    with pytest.raises(AuditError, match=r"audit\.rolled_back"):
        opened(host / "log", signer, anchored())


def test_where_a_counter_began_cannot_be_written_again(make: Maker, tss: Any) -> None:
    anchor = make()
    with tss.ESAPI(anchor.tcti) as tpm:
        beginning = tpm.tr_from_tpmpublic(anchor.index + 1)
        tpm.tr_set_auth(beginning, anchor.auth)
        with pytest.raises(tss.TSS2_Exception, match="locked"):
            tpm.nv_write(beginning, bytes(40))
        counter = tpm.tr_from_tpmpublic(anchor.index)
        tpm.tr_set_auth(counter, anchor.auth)
        with pytest.raises(tss.TSS2_Exception, match="inconsistent attributes"):
            tpm.nv_write(counter, bytes(8))
        for owner in (beginning, counter):
            with pytest.raises(tss.TSS2_Exception):
                tpm.nv_read(owner, 8, auth_handle=tss.ESYS_TR.OWNER)
    assert anchor.read() == 0


def test_other_users_of_the_tpm_can_neither_count_nor_lock_it(make: Maker, tss: Any) -> None:
    anchor = make()
    stranger = TpmCounterAnchor(anchor.tcti, anchor.index, bytes(31) + b"\1", anchor.log)
    assert code(stranger.increment) == "attestation.counter_foreign"
    assert anchor.increment() == 1
    with tss.ESAPI(anchor.tcti) as tpm:
        _, capability = tpm.get_capability(tss.TPM2_CAP.TPM_PROPERTIES, tss.TPM2_PT.LOCKOUT_COUNTER)
        assert capability.data.tpmProperties[0].value == 0


@pytest.mark.parametrize("nt", [0, 1])  # TPM2_NT_ORDINARY, TPM2_NT_COUNTER
def test_an_index_that_is_not_ringfences_is_not_used(
    tss: Any, tcti: str, indices: itertools.count[int], nt: int
) -> None:
    """A plain number that can be written back looks like a counter, until its attributes are looked at."""
    index, auth = next(indices), b"k" * 32
    with tss.ESAPI(tcti) as tpm:
        number = define_index(tss, tpm, index, 8, auth, nt)
        if nt:
            tpm.nv_increment(number)
        else:
            tpm.nv_write(number, bytes(8))
        # Where it began, as it would be, but not locked.
        tpm.nv_write(define_index(tss, tpm, index + 1, 40, auth), bytes(40))
    with pytest.raises(AttestationError, match=r"attestation\.counter_foreign.*not what Ringfence makes"):
        TpmCounterAnchor(tcti, index, auth, "rf1a").read()
    remove_anchor(index, tcti)


def test_a_definition_that_was_cut_short_is_neither_used_nor_in_the_way(make: Maker, tcti: str, tss: Any) -> None:
    anchor = make()
    with tss.ESAPI(tcti) as tpm:
        tpm.nv_undefine_space(tpm.tr_from_tpmpublic(anchor.index + 1))
    assert code(anchor.read) == "attestation.counter_foreign"
    remove_anchor(anchor.index, tcti)
    assert code(lambda: remove_anchor(anchor.index, tcti)) == "attestation.counter_missing"


def test_a_definition_that_fails_leaves_nothing(
    make: Maker, tmp_path: Path, tcti: str, tss: Any, indices: itertools.count[int]
) -> None:
    """The second index is taken: the first one is undone, and so is the file."""
    index = next(indices)
    with tss.ESAPI(tcti) as tpm:
        define_index(tss, tpm, index + 1, 8)
    path = tmp_path / "anchor.toml"
    for _ in range(2):
        define = lambda: define_anchor(path, "rf1a", tcti, random=os.urandom, index=index)  # noqa: E731
        assert code(define) == "attestation.counter_exists"
        assert not path.exists()
    remove_anchor(index, tcti)
    anchor = make()
    taken = lambda: define_anchor(path, "rf1a", tcti, random=os.urandom, index=anchor.index)  # noqa: E731
    assert code(taken) == "attestation.counter_exists"
    assert (anchor.read(), path.exists()) == (0, False)


def test_a_full_tpm_says_so_and_gives_back_what_it_took(
    start_swtpm: Callable[[], Any], tmp_path: Path, tss: Any
) -> None:
    tcti = start_swtpm().start()
    free = itertools.count(LAST_INDEX + 2)
    with tss.ESAPI(tcti) as tpm:
        for size in (2048, 256):
            with contextlib.suppress(tss.TSS2_Exception):
                while True:
                    define_index(tss, tpm, next(free), size)
        before = indices_in(tss, tpm)
    for index in itertools.count(FIRST_INDEX, 2):
        path = tmp_path / f"{index}.toml"
        try:
            define_anchor(path, "rf1a", tcti, random=os.urandom, index=index)
        except AttestationError as error:
            refused = error
            break
    assert (refused.code.name, path.exists()) == ("attestation.tpm_full", False)
    with tss.ESAPI(tcti) as tpm:
        assert indices_in(tss, tpm) == before + index - FIRST_INDEX


class TestOwner:
    @pytest.fixture
    def owned(self, start_swtpm: Callable[[], Any], tss: Any) -> str:
        tcti = str(start_swtpm().start())
        with tss.ESAPI(tcti) as tpm:
            tpm.hierarchy_change_auth(tss.ESYS_TR.OWNER, b"mine")
        return tcti

    def test_only_the_owner_makes_and_removes_counters_and_others_count(self, tmp_path: Path, owned: str) -> None:
        path = tmp_path / "anchor.toml"
        for wrong in (b"", b"yours"):
            define = lambda wrong=wrong: define_anchor(  # noqa: E731
                path, "rf1a", owned, random=os.urandom, owner_auth=wrong
            )
            assert code(define) == "attestation.tpm_owner"
            assert not path.exists()
        anchor = define_anchor(path, "rf1a", owned, random=os.urandom, owner_auth=b"mine")
        assert anchor.increment() == 1
        assert code(lambda: remove_anchor(anchor.index, owned)) == "attestation.tpm_owner"
        assert anchor.read() == 1
        remove_anchor(anchor.index, owned, owner_auth=b"mine")
        assert code(anchor.read) == "attestation.counter_missing"
