"""The list of spent one-time keys: durable before it returns, and never a second use, whatever happens to the file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ringfence.crypto import CryptoError
from ringfence.keystore import KeyStoreError, SpentKeys
from ringfence.trust import TrustError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spent"


def refused(spent: SpentKeys, key_id: str) -> None:
    with pytest.raises(CryptoError, match=r"crypto\.key_spent"):
        spent.spend(key_id)


def test_a_key_is_spent_once_also_after_a_restart(path: Path) -> None:
    with SpentKeys(path) as spent:
        spent.spend("one")
        refused(spent, "one")
        spent.spend("two")
    with SpentKeys(path) as again:
        for key_id in ("one", "two"):
            refused(again, key_id)
        again.spend("three")
    assert path.read_text() == "one\ntwo\nthree\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_cut_short_costs_nothing_that_was_spent(path: Path) -> None:
    """A crash in the middle of a line: every earlier key stays spent, and the next line stands alone."""
    with SpentKeys(path) as spent:
        spent.spend("one")
        spent.spend("twentytwo")
    whole = path.read_bytes()
    for length in range(4, len(whole)):
        path.write_bytes(whole[:length])
        with SpentKeys(path) as again:
            refused(again, "one")
            again.spend("three")
            refused(again, "three")
        with SpentKeys(path) as again:
            refused(again, "three")
            refused(again, "one")


def test_what_spend_acknowledged_outlives_a_kill(path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from ringfence.keystore import SpentKeys\n"
        "spent = SpentKeys(pathlib.Path(sys.argv[1]))\n"
        "for number in range(10**6):\n"
        "    spent.spend(str(number))\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = []
        for line in child.stdout:
            acknowledged.append(line)
            if line == "50\n":
                child.kill()
    with SpentKeys(path) as again:
        for line in acknowledged:
            if line.endswith("\n"):
                refused(again, line.strip())
    assert len(acknowledged) > 50


def test_one_process_at_a_time(path: Path) -> None:
    with SpentKeys(path), pytest.raises(KeyStoreError, match=r"keystore\.in_use"):
        SpentKeys(path)
    SpentKeys(path).close()


def test_two_threads_cannot_both_have_a_key(path: Path) -> None:
    got: list[int] = []
    start = threading.Barrier(8)
    with SpentKeys(path) as spent:

        def take(number: int) -> None:
            start.wait()
            try:
                spent.spend("wanted")
            except CryptoError:
                return
            got.append(number)

        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(got) == 1


def test_where_nothing_can_be_written_there_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match=r"keystore\.unwritable"):
        SpentKeys(tmp_path / "nowhere" / "spent")


def test_after_a_write_that_failed_every_key_is_refused(path: Path) -> None:
    with SpentKeys(path) as spent:
        spent.spend("one")
        previous = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, previous[1]))
        try:
            with pytest.raises(KeyStoreError, match=r"keystore\.unwritable"):
                spent.spend("two-two-two")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, previous)
            signal.signal(signal.SIGXFSZ, ignored)
        with pytest.raises(KeyStoreError, match=r"keystore\.unwritable.*earlier write failed"):
            spent.spend("three")
    with SpentKeys(path) as again:
        refused(again, "one")
        again.spend("three")


@pytest.mark.parametrize("mode", [0o640, 0o602])
def test_a_list_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)
    with pytest.raises(TrustError, match=r"trust\.unsafe_file"):
        SpentKeys(path)
    path.chmod(0o600)
    SpentKeys(path).close()


def test_a_link_in_its_place_is_refused(path: Path) -> None:
    os.symlink(path.parent / "elsewhere", path)
    with pytest.raises(KeyStoreError, match=r"keystore\.unwritable"):
        SpentKeys(path)
