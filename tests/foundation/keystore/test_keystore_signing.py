"""The process that signs with the second key: what it gives, what it lets nobody see, and how it ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.config.audit_section import AuditSettings, SecretFile
from ringfence.crypto import CryptoError, key_id, signature
from ringfence.crypto.forms import Form, KeyMaterial, export_private, export_public
from ringfence.errors import RingfenceError
from ringfence.keystore import KeyStoreError
from ringfence.keystore.signing import SigningProcess, load_second_key
from ringfence.keystore.signing_child import ALGORITHM, MAX_MESSAGE

SLH_DSA = signature(ALGORITHM)


@pytest.fixture(scope="module")
def key() -> KeyMaterial:
    public, private = SLH_DSA.generate()
    return KeyMaterial(ALGORITHM, public, private)


def children() -> set[int]:
    """The signing processes of this one, dead ones too that were not waited for."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            words = (folder / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if int(fields[1]) == os.getpid() and (fields[0] == "Z" or b"signing_child" in words):
            found.add(int(folder.name))
    return found


def eventually(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_it_signs_as_the_key_and_leaves_nothing_behind(key: KeyMaterial) -> None:
    before = descriptors()
    with SigningProcess(key) as process:
        assert (process.public, process.key_id) == (key.public, key_id(key.public))
        (child,) = children()
        for message in (b"m", b"x" * MAX_MESSAGE):
            SLH_DSA.verify(key.public, message, process.sign(message))
        with pytest.raises(CryptoError):
            SLH_DSA.verify(key.public, b"another", process.sign(b"m"))
        assert children() == {child}
    assert children() == set()
    assert descriptors() == before
    process.close()
    with pytest.raises(KeyStoreError, match="has ended") as caught:
        process.sign(b"m")
    assert caught.value.code.name == "keystore.signer_lost"


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1])
def test_a_message_that_is_empty_or_too_long_is_refused_and_the_next_is_signed(key: KeyMaterial, size: int) -> None:
    with SigningProcess(key) as process:
        with pytest.raises(KeyStoreError):
            process.sign(bytes(size))
        SLH_DSA.verify(key.public, b"m", process.sign(b"m"))


def test_threads_that_sign_at_once_get_their_own_signatures(key: KeyMaterial) -> None:
    signed: dict[bytes, bytes] = {}

    def sign(message: bytes) -> None:
        signed[message] = process.sign(message)

    with SigningProcess(key) as process:
        threads = [threading.Thread(target=sign, args=(b"%d" % number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(signed) == 6
    for message, one in signed.items():
        SLH_DSA.verify(key.public, message, one)


def test_nobody_sees_the_key_and_signals_to_the_group_do_not_end_it(key: KeyMaterial) -> None:
    with SigningProcess(key) as process:
        (child,) = children()
        shown = Path(f"/proc/{child}/cmdline").read_bytes()
        assert key.private not in shown
        assert key.private.hex().encode() not in shown
        if os.geteuid() == 0:  # to all others the kernel shows it no more, because the process is not dumpable
            assert Path(f"/proc/{child}/environ").read_bytes() == b""
        else:
            assert Path(f"/proc/{child}/environ").stat().st_uid == 0
        status = Path(f"/proc/{child}/status").read_text()
        assert "\nNoNewPrivs:\t1\n" in status
        (limit,) = [line for line in Path(f"/proc/{child}/limits").read_text().splitlines() if "core" in line]
        assert limit.split()[4:6] == ["0", "0"]
        assert repr(key.private) not in repr(vars(process))
        assert os.getsid(child) == child
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(child, number)
        SLH_DSA.verify(key.public, b"m", process.sign(b"m"))


def test_its_memory_cannot_be_dumped() -> None:
    program = (
        "import ctypes, os; from ringfence.keystore.signing_child import harden; harden(os.getppid());"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "0\n"


def test_a_child_that_was_killed_is_an_error_at_once_and_stays_one(key: KeyMaterial) -> None:
    before = descriptors()
    with SigningProcess(key) as process:
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        for said in ("ended by signal 9", "has ended"):
            with pytest.raises(KeyStoreError, match=said) as caught:
                process.sign(b"m")
            assert caught.value.code.name == "keystore.signer_lost"
            assert caught.value.hint
        assert children() == set()
    assert descriptors() == before


def test_a_child_that_is_killed_while_it_signs_is_an_error(key: KeyMaterial) -> None:
    with SigningProcess(key) as process:
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        eventually(lambda: stopped(child))
        killer = threading.Timer(0.1, os.kill, (child, signal.SIGKILL))
        killer.start()
        with pytest.raises(KeyStoreError, match="ended by signal 9"):
            process.sign(b"m")
        killer.join()
        assert children() == set()


def test_a_child_that_does_not_answer_is_killed_at_its_deadline(key: KeyMaterial) -> None:
    with SigningProcess(key, deadline_s=0.05) as process:
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        eventually(lambda: stopped(child))
        with pytest.raises(KeyStoreError, match=r"did not answer within 0\.05 s"):
            process.sign(b"m")
        assert children() == set()


def test_a_key_whose_signatures_do_not_hold_is_not_used(key: KeyMaterial) -> None:
    # A fault in the child, as far as one can be made here: its key signs, and is not the one that it should be.
    broken = KeyMaterial(ALGORITHM, key.public, bytes([key.private[0] ^ 1]) + key.private[1:])
    with SigningProcess(broken) as process:
        with pytest.raises(KeyStoreError, match="does not hold"):
            process.sign(b"m")
        assert children() == set()


PARENT = """
import sys
from pathlib import Path
from ringfence.config.audit_section import AuditSettings, SecretFile
from ringfence.keystore.signing import SigningProcess, load_second_key

with SigningProcess(load_second_key(AuditSettings(second_key=SecretFile(sys.argv[1])))):
    pids = Path("/proc/thread-self/children").read_text()
    print(pids, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("halted", [False, True])
def test_it_dies_with_its_parent(tmp_path: Path, key: KeyMaterial, halted: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, key_file(tmp_path, key)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        child = int(parent.stdout.readline())
        held = os.pidfd_open(child)
        try:
            if halted:  # so that it cannot see that its channel was closed
                os.kill(child, signal.SIGSTOP)
            parent.kill()
            parent.wait()
            # Readable once it has ended, whoever waits for it.
            assert select.select([held], [], [], 20)[0] == [held]
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held, signal.SIGKILL)
            os.close(held)


@pytest.mark.parametrize("packets", [[b""], [b"short"], [bytes(65)]])
def test_the_child_ends_at_a_packet_that_is_no_key(packets: list[bytes]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = ["-m", "ringfence.keystore.signing_child", "--fd", str(theirs.fileno()), "--parent", str(os.getpid())]
    with ours, theirs:
        child = subprocess.Popen([sys.executable, "-I", *words], pass_fds=(theirs.fileno(),))
        for packet in packets:
            ours.send(packet)
        assert child.wait(30) == 1


def test_the_child_refuses_to_run_for_another_parent() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        words = ["-m", "ringfence.keystore.signing_child", "--fd", str(theirs.fileno()), "--parent", "1"]
        done = subprocess.run(
            [sys.executable, "-I", *words], pass_fds=(theirs.fileno(),), capture_output=True, timeout=30, check=False
        )
    assert done.returncode == 1
    assert b"has gone" in done.stderr


# The key's file.


def key_file(folder: Path, key: KeyMaterial, form: Form = Form.PEM) -> str:
    path = folder / "audit.key"
    path.write_bytes(export_private(key, form))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("form", list(Form))
def test_a_key_file_in_each_form_is_read(tmp_path: Path, key: KeyMaterial, form: Form) -> None:
    assert load_second_key(AuditSettings(second_key=SecretFile(key_file(tmp_path, key, form)))) == key
    assert load_second_key(AuditSettings()) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, key: KeyMaterial, mode: int) -> None:
    path = key_file(tmp_path, key)
    os.chmod(path, mode)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    assert refused(path).code.name == "trust.unsafe_file"


def test_what_is_no_such_key_is_refused(tmp_path: Path, key: KeyMaterial) -> None:
    ed25519 = signature("Ed25519").generate()
    slower = signature("SLH-DSA-SHA2-128s").generate()
    path = tmp_path / "it.key"
    for content, says in (
        (b"", "holds no SLH-DSA-SHA2-128f private key"),
        (os.urandom(64), "holds no SLH-DSA-SHA2-128f private key"),
        (key.private, "holds no SLH-DSA-SHA2-128f private key"),
        (b"-----BEGIN RINGFENCE PRIVATE KEY-----\nAA==\n-----END RINGFENCE PRIVATE KEY-----\n", "holds no"),
        (export_public(ALGORITHM, key.public, Form.PEM), "is a public key"),
        (b"-----BEGIN RINGFENCE PUBLIC KEY-----\nAA==\n-----END RINGFENCE PUBLIC KEY-----\n", "is a public key"),
        (export_private(KeyMaterial("Ed25519", *ed25519), Form.PEM), "holds a key of Ed25519, not of SLH-DSA"),
        (export_private(KeyMaterial("SLH-DSA-SHA2-128s", *slower), Form.JWK), "holds a key of SLH-DSA-SHA2-128s"),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        error = refused(str(path))
        assert (error.code.name, error.field) == ("keystore.malformed", "audit.second_key")
        assert says in error.message
        assert "ringfence keys generate" in error.hint


def test_a_key_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "nowhere.key")).code.name == "trust.missing_file"
    assert refused(str(tmp_path)).code.name == "trust.unsafe_file"
    os.mkfifo(tmp_path / "pipe.key")
    assert refused(str(tmp_path / "pipe.key")).code.name == "trust.unsafe_file"


def refused(path: str) -> RingfenceError:
    with pytest.raises(RingfenceError) as caught:
        load_second_key(AuditSettings(second_key=SecretFile(path)))
    return caught.value
