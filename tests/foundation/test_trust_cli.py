"""`ringfence trust` as an operator uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli import main
from ringfence.trust import load


class Shell:
    """Runs command lines in this process and keeps what they printed."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self.capture = capture
        self.out = self.err = ""

    def __call__(self, *arguments: str | Path) -> int:
        status = main([str(argument) for argument in arguments])
        self.out, self.err = self.capture.readouterr()
        return status

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def ringfence(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def keys(tmp_path: Path, ringfence: Shell) -> Path:
    for name in ("alice", "mallory"):
        assert ringfence("trust", "generate", name, "--out", tmp_path) == 0
    return tmp_path


def test_generate_tells_the_id_and_the_files(tmp_path: Path, ringfence: Shell) -> None:
    assert ringfence("trust", "generate", "alice", "--out", tmp_path, "--json") == 0
    assert ringfence.document["private_key"] == str(tmp_path / "alice.key")
    assert ringfence.document["public_key"] == str(tmp_path / "alice.pub")
    assert len(ringfence.document["key_id"]) == 46


def test_a_second_generate_is_refused(keys: Path, ringfence: Shell) -> None:
    assert ringfence("trust", "generate", "alice", "--out", keys) == 1
    assert "trust.key_exists" in ringfence.err


def test_add_list_remove(keys: Path, ringfence: Shell) -> None:
    add = ("trust", "add", "client", "alice", keys / "alice.pub", "--state", keys)
    assert ringfence(*add, "--group", "clients", "--group", "job-submitters", "--expires", "2099-01-31", "--json") == 0
    key_id = ringfence.document["key_id"]

    assert ringfence("trust", "list", "--state", keys, "--json") == 0
    (pin,) = ringfence.document["pins"]
    assert pin.pop("added_at") > 1_700_000_000
    assert pin == {
        "role": "client",
        "name": "alice",
        "key_id": key_id,
        "groups": ["clients", "job-submitters"],
        "expires_at": 4_073_500_800,
        "expired": False,
    }
    assert ringfence("trust", "list", "--file", keys / "trust.toml") == 0
    assert f"client  alice  {key_id}  clients, job-submitters  2099-01-31T00:00:00Z" in ringfence.out

    assert ringfence("trust", "remove", "client", "alice", "--state", keys) == 0
    assert load(keys / "trust.toml").pins == ()


def test_another_key_under_a_pinned_name_is_refused_and_changes_nothing(keys: Path, ringfence: Shell) -> None:
    assert ringfence("trust", "add", "gateway", "front", keys / "alice.pub", "--state", keys) == 0
    before = (keys / "trust.toml").read_bytes()
    assert ringfence("trust", "add", "gateway", "front", keys / "mallory.pub", "--state", keys, "--json") == 1
    assert ringfence.document["error"]["code"] == "trust.conflict"
    assert (keys / "trust.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("add", "client", "alice", "missing.pub", "--state", "."), "trust.missing_file"),
        (("add", "client", "alice", "alice.key", "--state", "."), "trust.key_malformed"),
        (("add", "client", "alice", "alice.pub", "--state", "nowhere"), "trust.missing_file"),
        (("add", "client", "alice", "alice.pub"), "usage.bad_argument"),
        (("add", "client", "alice", "alice.pub", "--state", ".", "--file", "trust.toml"), "usage.bad_argument"),
        (("add", "root", "alice", "alice.pub", "--state", "."), "usage.bad_argument"),
        (("add", "client", "a\x1b[2J", "alice.pub", "--state", "."), "trust.malformed"),
        (("add", "agent", "host", "alice.pub", "--state", ".", "--group", "clients"), "trust.malformed"),
        (("add", "client", "alice", "alice.pub", "--state", ".", "--expires", "soon"), "usage.bad_argument"),
        (("add", "client", "alice", "alice.pub", "--state", ".", "--expires", "2020-01-01"), "usage.bad_argument"),
        (("list", "--state", "."), "trust.missing_file"),
        (("remove", "client", "alice", "--state", "."), "trust.missing_file"),
        (("generate", "../alice", "--out", "."), "trust.key_malformed"),
        (("generate", "bob", "--out", "nowhere"), "usage.unreadable_file"),
        (("rotate", "client", "alice", "alice.pub", "--state", "."), "trust.missing_file"),
        (("rotate", "client", "alice", "alice.pub", "--state", ".", "--overlap-days", "-1"), "usage.bad_argument"),
        (("rotate", "client", "alice", "alice.pub", "--state", ".", "--overlap-days", "367"), "usage.bad_argument"),
        ((), "usage.bad_argument"),
    ],
)
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(
    keys: Path, ringfence: Shell, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: str
) -> None:
    monkeypatch.chdir(keys)
    before = sorted(keys.rglob("*"))
    assert ringfence("trust", *arguments) == 2
    assert (ringfence.out, ringfence.err.count("\n")) == ("", 1)
    assert ringfence.err.startswith(f"ringfence: {code}")
    assert sorted(keys.rglob("*")) == before


def test_removing_what_is_not_pinned_is_bad_input(keys: Path, ringfence: Shell) -> None:
    assert ringfence("trust", "add", "agent", "host", keys / "alice.pub", "--state", keys) == 0
    assert ringfence("trust", "remove", "client", "host", "--state", keys) == 2
    assert "trust.no_such_pin" in ringfence.err
    assert len(load(keys / "trust.toml").pins) == 1


def test_a_spoiled_list_is_never_written_over(keys: Path, ringfence: Shell) -> None:
    path = keys / "trust.toml"
    path.write_text("version = 1\ntrust_everyone = true\n")
    assert ringfence("trust", "add", "client", "alice", keys / "alice.pub", "--state", keys) == 2
    assert f"config.unknown_key (trust_everyone): {path}:2: " in ringfence.err
    assert path.read_text() == "version = 1\ntrust_everyone = true\n"


def test_an_expired_pin_says_so(keys: Path, ringfence: Shell) -> None:
    assert ringfence("trust", "add", "client", "alice", keys / "alice.pub", "--state", keys) == 0
    path = keys / "trust.toml"
    path.write_text(path.read_text() + "expires_at = 1\n")
    assert ringfence("trust", "list", "--state", keys) == 0
    assert "1970-01-01T00:00:01Z (expired)" in ringfence.out


def test_rotate_leaves_both_keys_for_the_overlap(keys: Path, ringfence: Shell) -> None:
    state = ("--state", keys)
    assert ringfence("trust", "add", "client", "alice", keys / "alice.pub", *state, "--group", "clients") == 0
    assert ringfence("trust", "rotate", "client", "alice", keys / "mallory.pub", *state, "--json") == 0
    new = ringfence.document["key_id"]
    assert ringfence("trust", "list", *state, "--json") == 0
    old_pin, new_pin = ringfence.document["pins"]
    assert (old_pin["expires_at"] - new_pin["added_at"], new_pin["expires_at"]) == (7 * 86_400, None)
    assert (new_pin["key_id"], new_pin["groups"]) == (new, ["clients"])
    assert ringfence("trust", "rotate", "client", "alice", keys / "mallory.pub", *state) == 1
    assert "trust.conflict" in ringfence.err


def test_rotate_without_an_overlap_drops_the_old_key(keys: Path, ringfence: Shell) -> None:
    state = ("--state", keys)
    assert ringfence("trust", "add", "agent", "host", keys / "alice.pub", *state) == 0
    assert ringfence("trust", "rotate", "agent", "host", keys / "mallory.pub", *state, "--overlap-days", "0") == 0
    assert ringfence.out.startswith("rotated agent host rf1")
    assert len(load(keys / "trust.toml").pins) == 1
