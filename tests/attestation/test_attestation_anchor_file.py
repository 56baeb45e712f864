"""The file and the command of the TPM's counter: what they write, what they believe, and what a hung TPM costs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.attestation import AttestationError, anchor_cli
from ringfence.attestation.anchoring import FIRST_INDEX, LAST_INDEX, TpmCounterAnchor, define_anchor, open_anchor
from ringfence.config import ConfigError
from ringfence.crypto import key_id
from ringfence.errors import UsageError
from ringfence.frame import Parser
from ringfence.trust import TrustError, generate, load_public
from tests.attestation.conftest import workers
from tests.attestation.test_attestation_anchor import code


@pytest.fixture(scope="module")
def made(tcti: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A counter file, whose counter is at the first index."""
    path = tmp_path_factory.mktemp("made") / "anchor.toml"
    define_anchor(path, "rf1a", tcti, random=os.urandom)
    return path


def test_it_is_its_owners_alone_and_never_overwritten(made: Path, tcti: str) -> None:
    assert made.stat().st_mode & 0o777 == 0o600
    before = made.read_bytes()
    with pytest.raises(FileExistsError):
        define_anchor(made, "rf1a", tcti, random=os.urandom, index=LAST_INDEX)
    assert made.read_bytes() == before
    made.chmod(0o640)
    with pytest.raises(TrustError, match=r"trust\.unsafe_file"):
        open_anchor(made, "rf1a")
    made.chmod(0o600)


def test_the_authorisation_value_shows_nowhere_else(made: Path) -> None:
    anchor = open_anchor(made, "rf1a")
    assert repr(anchor.auth) not in repr(anchor)
    assert anchor == open_anchor(made, "rf1a")


WHOLE = {"version": "1", "tcti": '"swtpm:path=/t"', "index": "0x01805200", "auth": f'"{"A" * 43}="'}


def written(path: Path, **changed: str) -> Path:
    lines = [f"{key} = {value}\n" for key, value in {**WHOLE, **changed}.items() if value]
    path.write_text("".join(lines))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"version": "2"}, "config.bad_value"),
        ({"auth": '"AAAA"'}, "config.bad_value"),
        ({"auth": "7"}, "config.bad_value"),
        ({"auth": ""}, "config.missing_key"),
        ({"base": "7"}, "config.unknown_key"),
        ({"index": '"0x01805200"'}, "config.bad_value"),
        ({"index": "0x01805201"}, "usage.bad_argument"),
        ({"index": "0x01c00002"}, "usage.bad_argument"),
        ({"index": "-2"}, "usage.bad_argument"),
        ({"tcti": '"libevil.so:x"'}, "attestation.tpm_address"),
        ({"tcti": "["}, "config.bad_toml"),
    ],
)
def test_a_file_that_cannot_be_meant_opens_nothing(tmp_path: Path, changed: dict[str, str], expected: str) -> None:
    assert open_anchor(written(tmp_path / "whole.toml"), "rf1a").index == FIRST_INDEX
    path = written(tmp_path / "anchor.toml", **changed)
    with pytest.raises((ConfigError, UsageError, AttestationError)) as caught:
        open_anchor(path, "rf1a")
    assert caught.value.code.name == expected
    assert "AAAA" not in str(caught.value)


def test_a_tpm_out_of_reach_is_an_error(tmp_path: Path) -> None:
    anchor = open_anchor(written(tmp_path / "anchor.toml", tcti=f'"swtpm:path={tmp_path}/sock"'), "rf1a")
    assert code(anchor.read) == code(anchor.increment) == "attestation.tpm_missing"


def test_a_hung_tpm_costs_its_deadline_and_leaves_no_child(tmp_path: Path, silent_tpm: str) -> None:
    anchor = TpmCounterAnchor(silent_tpm, FIRST_INDEX, bytes(32), "rf1a", deadline_s=1.0)
    begun = time.monotonic()
    assert code(anchor.increment) == "attestation.tpm_hung"
    assert time.monotonic() - begun >= 1.0
    assert not workers()
    path = tmp_path / "anchor.toml"
    with pytest.raises(AttestationError, match=r"attestation\.tpm_hung"):
        define_anchor(path, "rf1a", silent_tpm, random=os.urandom, deadline_s=1.0)
    assert not path.exists()


class TestCommand:
    @pytest.fixture
    def public(self, tmp_path: Path) -> Path:
        generate(tmp_path, "agent")
        return tmp_path / "agent.pub"

    def ask(self, capsys: pytest.CaptureFixture[str], *words: object, as_json: bool = True) -> Any:
        parser = Parser(prog="ringfence anchor")
        anchor_cli.configure(parser)
        arguments = parser.parse_args([*map(str, words), *(["--json"] if as_json else [])])
        arguments.json = as_json
        assert anchor_cli.run(arguments) == 0
        out = capsys.readouterr().out
        return json.loads(out) if as_json else out

    def test_define_show_remove(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        tcti: str,
        public: Path,
    ) -> None:
        index, path = LAST_INDEX, tmp_path / "anchor.toml"
        define = ("define", path, "--key", public, "--tcti", tcti, "--index", hex(index))
        document = {"tcti": tcti, "index": f"{index:#010x}", "value": 0}
        assert self.ask(capsys, *define) == document
        open_anchor(path, key_id(load_public(public))).increment()
        assert self.ask(capsys, "show", path, "--key", public) == {**document, "value": 1}
        assert self.ask(capsys, "show", path, "--key", public, as_json=False) == f"{index:#010x}  1  {tcti}\n"
        assert code(lambda: self.ask(capsys, *define)) == "usage.bad_argument"
        assert self.ask(capsys, "remove", hex(index), "--tcti", tcti) == {**document, "value": None}
        assert code(lambda: self.ask(capsys, "show", path, "--key", public)) == "attestation.counter_missing"

    def test_the_owners_value_comes_from_a_file(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        start_swtpm: Callable[[], Any],
        tss: Any,
        public: Path,
    ) -> None:
        tcti = start_swtpm().start()
        with tss.ESAPI(tcti) as tpm:
            tpm.hierarchy_change_auth(tss.ESYS_TR.OWNER, b"mine")
        owner = tmp_path / "owner"
        owner.write_text("mine\n")
        owner.chmod(0o600)
        define = ("define", tmp_path / "anchor.toml", "--key", public, "--tcti", tcti)
        assert code(lambda: self.ask(capsys, *define)) == "attestation.tpm_owner"
        assert self.ask(capsys, *define, "--owner-auth", owner)["index"] == "0x01805200"
        owner.write_text("m" * 65)
        assert code(lambda: self.ask(capsys, *define, "--owner-auth", owner)) == "usage.bad_argument"
        owner.chmod(0o644)
        assert code(lambda: self.ask(capsys, *define, "--owner-auth", owner)) == "trust.unsafe_file"

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (("define", "f", "--key", "nowhere", "--tcti", "swtpm:path=/nowhere"), "trust.missing_file"),
            (("remove", "0x01800000", "--tcti", "swtpm:path=/nowhere"), "usage.bad_argument"),
            (("remove", "one", "--tcti", "swtpm:path=/nowhere"), "usage.bad_argument"),
            (("remove", "0x01805200", "--tcti", "swtpm:path=/nowhere"), "attestation.tpm_missing"),
            (("remove", "0x01805200", "--tcti", "/dev/tpmrm0"), "attestation.tpm_address"),
            (("show", "nowhere", "--key", "nowhere"), "trust.missing_file"),
            ((), "usage.bad_argument"),
        ],
    )
    def test_bad_input_has_its_code(
        self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
    ) -> None:
        assert code(lambda: self.ask(capsys, *words)) == expected
