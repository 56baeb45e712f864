"""Endorsements of modules: who vouches for what, until when, and that nobody else can."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from ringfence.cli import main
from ringfence.crypto import COMPOSITE, digest
from ringfence.plugin.endorsing import MAX_FILE, MAX_LIFETIME_S, Endorsements, endorse, verify
from ringfence.plugin.errors import GateError
from ringfence.trust import KeyPair, Pin, Role, TrustError, TrustList, generate
from ringfence.trust.errors import MISSING_FILE

NOW = 1_800_000_000
RELEASE, RESEARCH, STRANGER = (KeyPair(*COMPOSITE.generate()) for _ in range(3))
MODULE = digest(b"module").hex()
OTHER = digest(b"other").hex()
TRUST = TrustList(
    (
        Pin("release", Role.CLIENT, RELEASE.public, NOW, ("module-signers",)),
        Pin("research", Role.CLIENT, RESEARCH.public, NOW, ("clients",)),
    )
)


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / f"{name}.endorsement").write_bytes(data)


def test_whoever_is_in_the_group_vouches_for_one_module_for_a_time(tmp_path: Path) -> None:
    put(tmp_path, "a", endorse(RELEASE, MODULE, now=NOW, lifetime_s=100))
    put(tmp_path, "b", endorse(RESEARCH, MODULE, now=NOW, lifetime_s=100))
    put(tmp_path, "c", endorse(STRANGER, MODULE, now=NOW, lifetime_s=100))
    held = Endorsements(tmp_path, lambda: TRUST, group="module-signers")
    assert held.signers(MODULE, NOW) == ("release",)
    assert held.signers(OTHER, NOW) == ()
    assert held.signers(MODULE, NOW + 99) == ("release",)
    assert held.signers(MODULE, NOW + 100) == ()
    assert held.signers(MODULE, NOW - 61) == ()


def test_a_statement_counts_until_it_or_its_signers_pin_is_removed(tmp_path: Path) -> None:
    trust = [TRUST]
    put(tmp_path, "a", endorse(RELEASE, MODULE, now=NOW, lifetime_s=1000))
    held = Endorsements(tmp_path, lambda: trust[0], group="module-signers")
    assert held.signers(MODULE, NOW) == ("release",)
    trust[0] = TrustList()
    assert held.signers(MODULE, NOW) == ()
    trust[0] = TRUST
    os.unlink(tmp_path / "a.endorsement")
    assert held.signers(MODULE, NOW + 1) == ()


def test_without_a_trust_list_or_a_folder_nobody_vouches(tmp_path: Path) -> None:
    def gone() -> TrustList:
        raise TrustError(MISSING_FILE, "gone")

    put(tmp_path, "a", endorse(RELEASE, MODULE, now=NOW, lifetime_s=1000))
    assert Endorsements(tmp_path, gone, group="module-signers").signers(MODULE, NOW) == ()
    assert Endorsements(tmp_path / "none", lambda: TRUST, group="module-signers").signers(MODULE, NOW) == ()


@pytest.mark.parametrize("lifetime_s", [0, -1, MAX_LIFETIME_S + 1])
def test_an_endorsement_has_a_life_that_can_be_meant(lifetime_s: int) -> None:
    with pytest.raises(GateError, match="lasts for longer"):
        endorse(RELEASE, MODULE, now=NOW, lifetime_s=lifetime_s)


def forged() -> bytes:
    signed = msgspec.json.decode(endorse(RELEASE, MODULE, now=NOW, lifetime_s=9))
    other = msgspec.json.decode(endorse(RELEASE, OTHER, now=NOW, lifetime_s=9))
    return msgspec.json.encode(signed | {"statement": other["statement"]})


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 9000, b"x" * MAX_FILE, forged()])
def test_what_is_not_signed_is_refused(data: bytes) -> None:
    with pytest.raises(GateError) as caught:
        verify(data, TRUST, now=NOW)
    assert caught.value.code.name == "gateway.endorsement_refused"


def test_the_command_writes_what_the_gateway_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = generate(tmp_path, "release")
    (tmp_path / "guest.wasm").write_bytes(b"module")
    (tmp_path / "folder").mkdir()
    command = ["gateway", "endorse", str(tmp_path / "guest.wasm"), "--key", str(tmp_path / "release.key"), "--json"]
    assert main([*command, "--folder", str(tmp_path / "folder")]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["module"] == MODULE
    now = made["expires_at"] - 1
    trust = TrustList((Pin("release", Role.CLIENT, pair.public, now, ("module-signers",)),))
    held = Endorsements(tmp_path / "folder", lambda: trust, group="module-signers")
    assert held.signers(MODULE, now) == ("release",)
    assert main([*command, "--folder", str(tmp_path / "none")]) == 2
    assert "Make the folder first" in capsys.readouterr().out
