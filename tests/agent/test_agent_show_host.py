"""`ringfence agent --show-host`: what a gateway's operator writes down of a host, with a TPM and without."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.agent.config import AgentConfig
from ringfence.cli import main
from ringfence.config import ConfigError, load
from ringfence.trust import KeyPair, TrustList, generate, save


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="rf-show-") as made:
        yield Path(made)


@pytest.fixture
def key(folder: Path) -> KeyPair:
    return generate(folder, "agent")


@pytest.fixture
def tcti(folder: Path) -> Iterator[str]:
    """The address of a running software TPM."""
    program = shutil.which("swtpm")
    assert program, "swtpm is not installed: this test needs a TPM emulator (apt install swtpm)."
    path = folder / "tpm"
    arguments = ["--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"]
    arguments += ["--server", f"type=unixio,path={path}", "--ctrl", f"type=unixio,path={path}.ctrl"]
    with subprocess.Popen([program, "socket", "--tpm2", *arguments]) as process:
        give_up = time.monotonic() + 10
        while not (listens(path) and listens(path.with_name("tpm.ctrl"))):
            assert process.poll() is None, "swtpm has ended"
            assert time.monotonic() < give_up, "swtpm did not open its socket"
            time.sleep(0.01)
        yield f"swtpm:path={path}"
        process.terminate()


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def configured(folder: Path, tcti: str) -> str:
    text = 'component = "agent"\nsocket = "run/a.sock"\nstate = "."\nkey = "agent.key"\ntrust = "trust.toml"\n'
    file = folder / "agent.toml"
    file.write_text(f'{text}\n[attestation]\ntcti = "{tcti}"\n')
    return str(file)


def test_a_host_with_a_tpm(folder: Path, key: KeyPair, tcti: str, capfd: pytest.CaptureFixture[str]) -> None:
    file = configured(folder, tcti)
    assert main(["agent", "--config", file, "--show-host"]) == 0
    printed = capfd.readouterr()
    table = tomllib.loads(printed.out)
    host = table["host"]
    assert printed.err == ""
    assert (host["socket"], host["agent"]) == (str(folder / "run" / "a.sock"), key.key_id)
    assert [len(name) for name in host["attestation_keys"]] == [64]
    assert host["pcrs"] == {str(index): ["0" * 64] for index in range(8)}
    assert not (folder / "run").exists()

    assert main(["agent", "--config", file, "--show-host", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == table


def test_a_host_without_a_tpm_says_so(folder: Path, key: KeyPair, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "--config", configured(folder, "none"), "--show-host"]) == 0
    printed = capfd.readouterr()
    assert tomllib.loads(printed.out) == {"host": {"socket": str(folder / "run" / "a.sock"), "agent": key.key_id}}
    assert printed.err == (
        "ringfence agent: This host is not attested, because its configuration says that it has no TPM; the shipped "
        "policies refuse such a host.\n"
    )


@pytest.mark.usefixtures("key")
def test_a_tpm_that_is_not_there_is_an_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "--config", configured(folder, "device:/dev/no-such-tpm"), "--show-host"]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("ringfence: attestation.tpm_missing: ")


@pytest.mark.parametrize(
    "tcti",
    ["", "on", "Auto", "device", "device:tpm0", "swtpm:/run/tpm", "swtpm:path=tpm", "/lib/evil.so", "mssim:a=/b"],
)
def test_an_address_that_names_no_tpm_is_refused_with_its_line(folder: Path, tcti: str) -> None:
    with pytest.raises(
        ConfigError, match="expected auto, none, device:/dev/tpmrm0 or another device, or swtpm:path="
    ) as e:
        load(Path(configured(folder, tcti)), AgentConfig)
    assert (e.value.field, e.value.line) == ("attestation.tcti", 8)


@pytest.mark.parametrize("tcti", ["auto", "none", "device:/dev/tpm0", "swtpm:path=/run/a tpm"])
def test_an_address_of_a_tpm_checks(folder: Path, key: KeyPair, tcti: str) -> None:
    save(folder / "trust.toml", TrustList())
    config = load(Path(configured(folder, tcti)), AgentConfig)
    assert config.attestation.tcti == tcti
    assert config.open().signer.key_id == key.key_id


def test_a_socket_whose_path_is_too_long_is_refused_before_any_folder_is_made(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Path(configured(folder, "none"))
    file.write_text(file.read_text().replace("run/a.sock", f"run/{'a' * 100}.sock"))
    assert main(["agent", "--config", str(file)]) == 2
    said = capfd.readouterr().err
    assert said.startswith(
        f"ringfence: config.bad_value (socket): {file}:2: socket: expected a socket's path of at most"
    )
    assert not (folder / "run").exists()
