"""Real software TPMs, and a forger that can break any single field of otherwise perfect evidence."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ringfence.attestation.evidence import Pcr, TpmEvidence, qualifying_data
from ringfence.crypto import COMPOSITE, key_id

START_DEADLINE_S = 10.0


class Swtpm:
    """One software TPM with its own state, in a folder short enough for a socket's path."""

    def __init__(self) -> None:
        program = shutil.which("swtpm")
        assert program, "swtpm is not installed: the attestation tests need a TPM emulator (apt install swtpm)."
        self._program = program
        self._state = Path(tempfile.mkdtemp(prefix="rf-tpm-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tcti(self) -> str:
        return f"swtpm:path={self._state}/sock"

    def start(self, flags: str = "not-need-init,startup-clear") -> str:
        self._process = subprocess.Popen(
            [
                *(self._program, "socket", "--tpm2", "--tpmstate", f"dir={self._state}", "--flags", flags),
                *("--server", f"type=unixio,path={self._state}/sock"),
                *("--ctrl", f"type=unixio,path={self._state}/sock.ctrl"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + START_DEADLINE_S
        while not self._listens():
            assert self._process.poll() is None, f"swtpm ended with status {self._process.returncode}"
            assert time.monotonic() < give_up, "swtpm did not open its socket"
            time.sleep(0.01)
        return self.tcti

    def _listens(self) -> bool:
        for name in ("sock", "sock.ctrl"):
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(f"{self._state}/{name}")
                except OSError:
                    return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_DEADLINE_S)
            self._process = None

    def cut_power(self) -> None:
        """Ends it at once: nothing is told to the TPM, and nothing is written any more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(START_DEADLINE_S)
        self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._state)


@pytest.fixture(scope="module")
def start_swtpm() -> Iterator[Callable[[], Any]]:
    """Makes software TPMs (not yet started) and removes them at the end of the module."""
    made: list[Swtpm] = []

    def make() -> Swtpm:
        made.append(Swtpm())
        return made[-1]

    yield make
    for swtpm in made:
        swtpm.remove()


@pytest.fixture(scope="module")
def tcti(start_swtpm: Callable[[], Any]) -> str:
    """The address of a running software TPM."""
    return str(start_swtpm().start())


@pytest.fixture(scope="module")
def other_tcti(start_swtpm: Callable[[], Any]) -> str:
    """The address of another host's software TPM."""
    return str(start_swtpm().start())


@pytest.fixture
def silent_tpm(tmp_path: Path) -> Iterator[str]:
    """A TPM that takes every command and never answers."""
    with socket.socket(socket.AF_UNIX) as commands, socket.socket(socket.AF_UNIX) as control:
        for listener, name in ((commands, "sock"), (control, "sock.ctrl")):
            listener.bind(str(tmp_path / name))
            listener.listen()
        yield f"swtpm:path={tmp_path}/sock"


def workers() -> list[int]:
    """The process ids of this process's own TPM workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"tpm_worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.fixture(scope="session")
def tss() -> Any:
    """tpm2-pytss, for what only an owner of a TPM may do to it."""
    os.environ["TSS2_LOG"] = "all+NONE"
    return importlib.import_module("tpm2_pytss")


@pytest.fixture(scope="session")
def agent_key() -> bytes:
    return COMPOSITE.generate()[0]


@pytest.fixture(scope="session")
def other_agent_key() -> bytes:
    return COMPOSITE.generate()[0]


@pytest.fixture
def nonce() -> bytes:
    return os.urandom(32)


@dataclasses.dataclass(frozen=True)
class Forgery:
    """Every field of a quote; the defaults make a perfect one. `values` are what the TPM measured."""

    attributes: int = 0x00050472
    name_algorithm: int = 0x000B
    scheme: bytes = bytes.fromhex("0018000b")
    curve: int = 0x0003
    on_curve: bool = True
    hierarchy: int = 0x4000000B
    magic: int = 0xFF544347
    kind: int = 0x8018
    bound_to: bytes | None = None
    banks: tuple[tuple[int, bytes], ...] = ((0x000B, b"\xff\x00\x00"),)
    values: tuple[bytes, ...] = tuple(bytes([index]) * 32 for index in range(8))
    indices: tuple[int, ...] = tuple(range(8))
    shown: tuple[bytes, ...] | None = None
    signature_scheme: bytes = bytes.fromhex("0018000b")
    signed_by_another: bool = False


def tpm2b(content: bytes) -> bytes:
    return len(content).to_bytes(2, "big") + content


@pytest.fixture(scope="session")
def forge() -> Callable[..., TpmEvidence]:
    """Makes evidence signed by a software AK: `forge(nonce, agent_key, **fields of Forgery)`."""
    ak = ec.generate_private_key(ec.SECP256R1())
    another = ec.generate_private_key(ec.SECP256R1())

    def make(nonce: bytes, agent_key: bytes, **fields: Any) -> TpmEvidence:
        forgery = Forgery(**fields)
        point = ak.public_key().public_numbers()
        public = b"".join(
            (
                (0x0023).to_bytes(2, "big"),
                forgery.name_algorithm.to_bytes(2, "big"),
                forgery.attributes.to_bytes(4, "big"),
                tpm2b(b""),
                (0x0010).to_bytes(2, "big"),
                forgery.scheme,
                forgery.curve.to_bytes(2, "big"),
                (0x0010).to_bytes(2, "big"),
                tpm2b((point.x if forgery.on_curve else 5).to_bytes(32, "big")),
                tpm2b(point.y.to_bytes(32, "big")),
            )
        )
        name = b"\x00\x0b" + hashlib.sha256(public).digest()
        signer = b"\x00\x0b" + hashlib.sha256(forgery.hierarchy.to_bytes(4, "big") + name).digest()
        quote = b"".join(
            (
                forgery.magic.to_bytes(4, "big"),
                forgery.kind.to_bytes(2, "big"),
                tpm2b(signer),
                tpm2b(forgery.bound_to or qualifying_data(nonce, agent_key)),
                (7).to_bytes(8, "big") + (3).to_bytes(4, "big") + (2).to_bytes(4, "big") + b"\x01",
                (0x20191023).to_bytes(8, "big"),
                len(forgery.banks).to_bytes(4, "big"),
                *(bank.to_bytes(2, "big") + bytes([len(bitmap)]) + bitmap for bank, bitmap in forgery.banks),
                tpm2b(hashlib.sha256(b"".join(forgery.values)).digest()),
            )
        )
        key = another if forgery.signed_by_another else ak
        r, s = decode_dss_signature(key.sign(quote, ec.ECDSA(hashes.SHA256())))
        shown = forgery.values if forgery.shown is None else forgery.shown
        return TpmEvidence(
            nonce=nonce,
            agent_key_id=key_id(agent_key),
            quote=quote,
            signature=forgery.signature_scheme + tpm2b(r.to_bytes(32, "big")) + tpm2b(s.to_bytes(32, "big")),
            ak_public=public,
            pcrs=tuple(Pcr(index, value) for index, value in zip(forgery.indices, shown, strict=True)),
        )

    return make
