"""The trust list of a running process: a change counts at the next call, and a broken file trusts nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.config import ConfigError
from ringfence.trust import Pin, Role, TrustError, TrustList, save
from ringfence.trust.watch import TrustFile

ALICE = Pin("alice", Role.CLIENT, b"a" * 1984, 1)
BOB = Pin("bob", Role.CLIENT, b"b" * 1984, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path / "trust.toml", TrustList((ALICE,)))
    return tmp_path / "trust.toml"


def test_every_change_counts_at_the_next_call(path: Path) -> None:
    trust = TrustFile(path)
    assert trust() is trust() == TrustList((ALICE,))
    save(path, TrustList((BOB,)))
    assert trust() == TrustList((BOB,))
    save(path, TrustList())
    assert trust() == TrustList()


def test_a_file_that_is_gone_trusts_nobody_until_it_is_back(path: Path) -> None:
    trust = TrustFile(path)
    aside = path.rename(path.with_suffix(".aside"))
    for _ in range(2):
        with pytest.raises(TrustError, match=r"trust\.missing_file"):
            trust()
    aside.rename(path)
    assert trust() == TrustList((ALICE,))


def test_a_file_that_does_not_parse_trusts_nobody_however_often_it_is_asked(path: Path) -> None:
    trust = TrustFile(path)
    good = path.read_bytes()
    path.write_bytes(good + b"[[pin]]\n")
    for _ in range(2):
        with pytest.raises(ConfigError):
            trust()
    path.write_bytes(good)
    assert trust() == TrustList((ALICE,))


def test_a_file_that_others_may_write_trusts_nobody(path: Path) -> None:
    trust = TrustFile(path)
    path.write_bytes(path.read_bytes() + b"\n")
    path.chmod(0o666)
    with pytest.raises(TrustError, match=r"trust\.unsafe_file"):
        trust()


def test_a_process_does_not_start_without_a_list(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"trust\.missing_file"):
        TrustFile(tmp_path / "trust.toml")
