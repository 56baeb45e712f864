"""Break-glass approvals: who may approve of whom, for how long, and what does not count."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pytest

from ringfence.crypto import COMPOSITE
from ringfence.errors import RingfenceError, UsageError
from ringfence.plugin.identity import approvals, approve_cli
from ringfence.plugin.identity.approval_folder import ApprovalFolder
from ringfence.plugin.identity.errors import IdentityError
from ringfence.plugin.identity.statement_folder import MAX_FILES
from ringfence.trust import KeyPair, Pin, Role, TrustError, TrustList, generate
from ringfence.trust.errors import MISSING_FILE
from tests.plugin.identity.certificates import NOW

PEOPLE = {name: KeyPair(*COMPOSITE.generate()) for name in ("alice", "bob", "carol", "eve")}
GROUPS = {"alice": ("approvers",), "bob": ("approvers",), "carol": ("approvers", "clients"), "eve": ("clients",)}
TRUST = TrustList(tuple(Pin(name, Role.CLIENT, key.public, NOW, GROUPS[name]) for name, key in PEOPLE.items()))


def approval(approver: str, principal: str = "alice", *, now: int = NOW, lifetime_s: int = 3600) -> bytes:
    return approvals.make(
        PEOPLE[approver], principal=principal, reason="the beam is down", now=now, lifetime_s=lifetime_s
    )


def held(*statements: bytes, trust: TrustList = TRUST, now: int = NOW) -> int:
    verified = [approvals.verify(data, TRUST, now=NOW) for data in statements]
    return approvals.count(verified, trust, principal="alice", group="approvers", now=now)


def test_different_other_people_in_the_group_count() -> None:
    bob, carol = approval("bob"), approval("carol")
    assert held() == 0
    assert held(bob) == held(bob, bob, approval("bob", lifetime_s=7200)) == 1
    assert held(bob, carol) == 2
    # Her own, one by somebody outside the group, one for somebody else.
    assert held(bob, approval("alice"), approval("eve"), approval("carol", "bob")) == 1


def test_an_approval_ends_and_goes_with_its_signers_pin() -> None:
    bob = approval("bob")
    assert held(bob, now=NOW + 3599) == 1
    assert held(bob, now=NOW + 3600) == held(bob, now=NOW - 61) == 0
    assert held(bob, trust=TRUST.remove(Role.CLIENT, "bob")) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"lifetime_s": 8 * 3600 + 1},
        {"lifetime_s": 0},
        {"reason": ""},
        {"reason": " "},
        {"reason": "a\nb"},
        {"principal": ""},
        {"principal": "al\u0456ce"},
    ],
)
def test_what_cannot_count_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(IdentityError):
        approvals.make(
            PEOPLE["bob"], **{"principal": "alice", "reason": "why", "now": NOW, "lifetime_s": 60, **changes}
        )


def forged(**changes: Any) -> bytes:
    return json.dumps({**json.loads(approval("bob")), **changes}).encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "identity.approval_malformed"),
        (b"[" * 9999, "identity.approval_malformed"),
        (b" " * 20_000, "identity.approval_malformed"),
        (forged(statement="e30="), "identity.approval_malformed"),
        (forged(signature="AAAA"), "identity.approval_refused"),
        (forged(statement=json.loads(approval("bob", "eve"))["statement"]), "identity.approval_refused"),
        (forged(more=1), "identity.approval_malformed"),
    ],
)
def test_a_forged_approval_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(RingfenceError) as refused:
        approvals.verify(data, TRUST, now=NOW)
    assert refused.value.code.name == code
    with pytest.raises(IdentityError) as unknown:
        approvals.verify(approval("bob"), TRUST.remove(Role.CLIENT, "bob"), now=NOW)
    assert unknown.value.code.name == "identity.approval_refused"


def test_a_folder_is_looked_at_once_a_second(tmp_path: Path) -> None:
    folder = ApprovalFolder(tmp_path, lambda: TRUST, group="approvers")
    assert folder.approvals("alice", NOW) == 0
    (tmp_path / "one.approval").write_bytes(approval("bob"))
    (tmp_path / "two.approval").write_bytes(b"junk")
    (tmp_path / "three.txt").write_bytes(approval("carol"))
    (tmp_path / "four.approval").symlink_to(tmp_path / "three.txt")
    assert folder.approvals("alice", NOW) == 0
    assert folder.approvals("alice", NOW + 1) == 1
    assert folder.approvals("bob", NOW + 1) == 0
    (tmp_path / "two.approval").write_bytes(approval("carol"))
    assert folder.approvals("alice", NOW + 2) == 2
    (tmp_path / "one.approval").unlink()
    assert folder.approvals("alice", NOW + 3) == 1


def test_a_folder_that_cannot_be_trusted_has_no_approvals(tmp_path: Path) -> None:
    (tmp_path / "one.approval").write_bytes(approval("bob"))

    def nobody() -> TrustList:
        raise TrustError(MISSING_FILE, "The list is gone.")

    assert ApprovalFolder(tmp_path, nobody, group="approvers").approvals("alice", NOW) == 0
    assert ApprovalFolder(tmp_path / "absent", lambda: TRUST, group="approvers").approvals("alice", NOW) == 0
    folder = ApprovalFolder(tmp_path, lambda: TRUST, group="approvers")
    assert folder.approvals("alice", NOW) == 1
    for number in range(MAX_FILES):
        (tmp_path / f"{number}.approval").write_bytes(b"junk")
    assert folder.approvals("alice", NOW + 1) == 0


def test_the_command_writes_an_approval_that_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = generate(tmp_path, "bob")
    trust = TrustList((Pin("bob", Role.CLIENT, pair.public, NOW, ("approvers",)),))
    folder = tmp_path / "approvals"

    def approve(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        parser.add_argument("--json", action="store_true")
        approve_cli.configure(parser)
        common = ["alice", "--reason", "the beam is down", "--key", str(tmp_path / "bob.key"), "--folder", str(folder)]
        return approve_cli.run(parser.parse_args([*common, *arguments]))

    with pytest.raises(UsageError):
        approve()
    folder.mkdir()
    with pytest.raises(UsageError):
        approve("--hours", "9")
    assert approve("--hours", "2") == 0
    assert "approved of alice for 2 h" in capsys.readouterr().out
    assert approve("--json") == 0
    assert json.loads(capsys.readouterr().out)["principal"] == "alice"
    assert ApprovalFolder(folder, lambda: trust, group="approvers").approvals("alice", int(time.time())) == 1
