"""`ringfence keys` as an operator uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli import main
from ringfence.crypto.forms import import_private, import_public
from ringfence.trust import load, load_private, load_public

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def keys(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `ringfence keys …`: the status, the document or text on standard output, and standard error."""

    def run(*arguments: str | Path, json_output: bool = True, command: str = "keys") -> tuple[int, Any, str]:
        more = ["--json"] if json_output else []
        status = main([command, *(str(argument) for argument in arguments), *more])
        out, err = capsys.readouterr()
        return status, json.loads(out) if json_output else out, err

    return run


def test_generate_list_rotate_prune(tmp_path: Path, keys: Run) -> None:
    store = ("--store", tmp_path)
    status, made, _ = keys("generate", "gateway", *store)
    assert (status, made["version"], made["algorithm"], made["sealed_by"]) == (0, 1, "ML-DSA-65-Ed25519", "")
    assert load_private(tmp_path / made["file"]).key_id == made["key_id"]

    assert keys("rotate", "gateway", *store, "--overlap-days", "1")[1]["version"] == 2
    old, new = keys("list", *store)[1]["keys"]
    assert (old["retires_at"] - new["created_at"], new["retires_at"], old["retired"]) == (86_400, None, False)
    _, text, _ = keys("list", *store, json_output=False)
    assert [line.split()[:3] for line in text.splitlines()[1:]] == [
        ["gateway", "1", "ML-DSA-65-Ed25519"],
        ["gateway", "2", "ML-DSA-65-Ed25519"],
    ]
    assert keys("prune", *store)[1] == {"keys": []}
    assert keys("rotate", "gateway", *store, "--overlap-days", "0")[1]["version"] == 3
    assert [key["version"] for key in keys("list", *store)[1]["keys"]] == [1, 3]


def test_what_is_exported_can_be_pinned(tmp_path: Path, keys: Run) -> None:
    _, made, _ = keys("generate", "alice", "--store", tmp_path)
    for form in ("ringfence", "pem", "der", "jwk"):
        out = tmp_path / f"alice.{form}"
        assert keys("export", "alice", "--store", tmp_path, "--form", form, "--out", out)[0] == 0
        assert out.stat().st_mode & 0o777 == 0o644
        public = load_public(out)
    add = ("add", "client", "alice", tmp_path / "alice.jwk", "--file", tmp_path / "trust.toml")
    assert keys(*add, command="trust")[1]["key_id"] == made["key_id"]
    assert load(tmp_path / "trust.toml").pins[0].public == public


@pytest.mark.parametrize("form", ["pem", "der", "jwk"])
def test_a_private_key_leaves_and_enters(tmp_path: Path, keys: Run, form: str) -> None:
    _, made, _ = keys("generate", "mine", "--store", tmp_path, "--algorithm", "Ed25519")
    out = tmp_path / "out"
    assert keys("export", "mine", "--store", tmp_path, "--private", "--form", form, "--out", out)[0] == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert import_private(out.read_bytes()).algorithm == "Ed25519"
    (tmp_path / "other").mkdir()
    _, taken, _ = keys("import", "theirs", out, "--store", tmp_path / "other")
    assert (taken["key_id"], taken["name"]) == (made["key_id"], "theirs")


def test_a_private_composite_key_leaves_as_the_daemons_read_it(tmp_path: Path, keys: Run) -> None:
    _, made, _ = keys("generate", "mine", "--store", tmp_path)
    out = tmp_path / "mine.key"
    assert keys("export", "mine", "--store", tmp_path, "--private", "--form", "ringfence", "--out", out)[0] == 0
    assert load_private(out).key_id == made["key_id"]


def test_an_export_without_private_holds_no_private_half(tmp_path: Path, keys: Run) -> None:
    keys("generate", "mine", "--store", tmp_path, "--algorithm", "X-Wing")
    keys("export", "mine", "--store", tmp_path, "--out", tmp_path / "mine.pem")
    assert import_public((tmp_path / "mine.pem").read_bytes())[0] == "X-Wing"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("generate", "mine", "--store", "."), "keystore.exists"),
        (("generate", "a/b", "--store", "."), "keystore.malformed"),
        (("generate", "new", "--store", ".", "--algorithm", "RSA"), "crypto.algorithm_unknown"),
        (("generate", "new", "--store", ".", "--algorithm", "BIKE-L1"), "crypto.algorithm_unknown"),
        (("generate", "new", "--store", "nowhere"), "trust.missing_file"),
        (("generate", "new"), "usage.bad_argument"),
        (("rotate", "yours", "--store", "."), "keystore.no_such_key"),
        (("rotate", "mine", "--store", ".", "--overlap-days", "-1"), "usage.bad_argument"),
        (("export", "mine", "--store", ".", "--out", "keys.toml"), "usage.bad_argument"),
        (("export", "mine", "--store", ".", "--out", "new", "--form", "jwk"), "crypto.form_invalid"),
        (("export", "mine", "--store", ".", "--out", "new", "--form", "ringfence"), "usage.bad_argument"),
        (("export", "mine", "--store", ".", "--out", "nowhere/new"), "usage.unreadable_file"),
        (("import", "new", "keys.toml", "--store", "."), "crypto.form_invalid"),
        (("import", "new", "nowhere", "--store", "."), "trust.missing_file"),
        (("import", "new", "open.pem", "--store", "."), "trust.unsafe_file"),
        ((), "usage.bad_argument"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    tmp_path: Path, keys: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert keys("generate", "mine", "--store", ".", "--algorithm", "X-Wing")[0] == 0
    (tmp_path / "open.pem").touch(0o644)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    status, out, err = keys(*arguments, json_output=False)
    assert (status in (1, 2), out, err.count("\n")) == (True, "", 1)
    assert err.startswith(f"ringfence: {code}")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
