"""docs/audit-log.md: its examples are what the code writes, its commands and kinds are those there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence.audit import Checkpoint
from ringfence.audit.checkpoint import decode_checkpoint, sign_checkpoint
from ringfence.audit.kinds import KINDS
from ringfence.audit.merkle import Frontier, cover, leaf_hash
from ringfence.audit.notes import encode_note
from ringfence.audit.records import decode_line
from ringfence.audit.segments import decode_covered, decode_header
from ringfence.cli import main
from tests.audit.conftest import Ed25519Signer

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "audit-log.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\w+\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_are_one_log(signer: Ed25519Signer) -> None:
    header, records, checkpoint, covered = (block.encode() for block in BLOCKS)
    start = decode_header(header.strip())
    lines = records.splitlines()
    entries = [decode_line(line) for line in lines]
    leaves = [leaf_hash(line) for line in lines]
    assert [entry.seq for entry in entries] == [1, 2]
    assert entries[0].prev.encode() == start.prev
    assert entries[1].prev == leaves[0].hex()
    any_point = Checkpoint(start.origin, 1, b"\0" * 32, "0" * 64, 0)
    signature = decode_checkpoint(sign_checkpoint(any_point, signer)).note.signatures
    said = decode_checkpoint(encode_note(checkpoint, signature)).checkpoint
    assert (said.origin, said.size, said.chain) == (start.origin, 2, leaves[1].hex())
    assert said.root == Frontier().extend(leaves).root()
    assert decode_covered(covered.strip()).nodes == tuple(node.hex() for node in cover(0, leaves))


def test_every_kind_is_named() -> None:
    (sentence,) = re.findall(r"The kinds are (.*?)\. A change", PAGE)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(KINDS)


def test_every_action_is_in_the_table_and_there(capsys: pytest.CaptureFixture[str]) -> None:
    listed = set(re.findall(r"\| `ringfence audit ([a-z-]+) ", PAGE))
    assert main(["audit", "--help"]) == 0
    found = set(re.findall(r"^    ([a-z-]+)\s", capsys.readouterr().out, re.MULTILINE))
    assert found - {"h"} == listed
    for action in listed:
        assert main(["audit", action, "--help"]) == 0
    options = set(re.findall(r"(--[a-z][a-z-]*)", PAGE))
    helped = capsys.readouterr().out
    assert {option for option in options if option not in helped} == {"--records", "--owner-auth"}
