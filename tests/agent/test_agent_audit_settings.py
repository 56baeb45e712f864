"""A real agent whose file has an `[audit]` table: its log has that one's segments, signatures and retention."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence.agent.config import AgentConfig
from ringfence.audit import Operator
from ringfence.audit.folder import read_layout
from ringfence.cli import main
from ringfence.config import load
from ringfence.keystore.daemon_log import open_daemon_log
from ringfence.trust import TrustList, generate, load_private, save

CONFIGURATION = """\
component = "agent"
socket = "agent.sock"
state = "state"
key = "agent.key"
trust = "trust.toml"

[attestation]
tcti = "none"

[audit]
segment_bytes = 65536
keep_bytes = 65536
second_key = "keys/audit.1.key"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An agent's configuration with a second key that was made as the documentation says."""
    generate(tmp_path, "agent")
    save(tmp_path / "trust.toml", TrustList())
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    assert main(["keys", "generate", "audit", "--store", str(keys), "--algorithm", "SLH-DSA-SHA2-128f"]) == 0
    assert main(["keys", "export", "audit", "--store", str(keys), "--out", str(tmp_path / "audit.pub")]) == 0
    path = tmp_path / "agent.toml"
    path.write_text(CONFIGURATION)
    return path


@contextmanager
def running(file: Path) -> Iterator[subprocess.Popen[str]]:
    """An agent that is ready; ended when the body is, and left as it is where the body ended it."""
    words = [sys.executable, "-m", "ringfence.cli", "agent", "--config", str(file)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        try:
            assert "ready on" in process.stderr.readline()
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def signing_child(parent: int) -> int:
    """The agent's signing process."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (child,) = [pid for pid in children if b"signing_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert b"signing_child" in Path(f"/proc/{child}/cmdline").read_bytes()
    return int(child)


def alive(pid: int) -> bool:
    """Whether it runs, and is no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_its_log_verifies_with_both_keys_and_old_segments_go(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = load(file, AgentConfig), file.parent
    two_days_ago = time.time_ns() - 2 * 86_400 * 1_000_000_000
    clock = itertools.count(two_days_ago, 1000)
    with open_daemon_log(
        config.state, "agent", load_private(config.key), config.audit, clock_ns=lambda: next(clock)
    ) as log:
        for number in range(1200):
            ticket = log.append(Operator(event="trust", component="agent", version=str(number)))
            if number % 100 == 99:
                log.wait(ticket)
    logged = folder / "state" / "audit" / "agent"
    before = read_layout(logged).records
    assert len(before) > 2

    with running(file) as agent:
        child = signing_child(agent.pid)
        give_up = time.monotonic() + 20
        while len(read_layout(logged).compacted) < len(before) - 1:
            assert time.monotonic() < give_up, "retention took no effect"
            time.sleep(0.02)
    assert agent.returncode == 0
    assert not Path(f"/proc/{child}").exists()
    after = read_layout(logged)
    assert after.compacted == before[:-1]
    capsys.readouterr()
    words = ["--key", str(folder / "agent.pub"), "--second-key", str(folder / "audit.pub"), "--json"]
    assert main(["audit", "verify", str(logged), *words]) == 0
    (report,) = json.loads(capsys.readouterr().out)["logs"]
    assert report["first_record"] == before[-1]
    assert report["uncovered"] == 0
    # The last of the segment that stayed, and the agent's own at its start and its end.
    assert report["checkpoints_second_key"] >= 3


def test_a_whole_service_that_is_told_to_stop_still_signs_its_end(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(file) as agent:
        # As a service manager does it, to every process of the unit.
        for pid in (signing_child(agent.pid), agent.pid):
            os.kill(pid, signal.SIGTERM)
        assert agent.wait(20) == 0
    folder = file.parent
    capsys.readouterr()
    words = ["--key", str(folder / "agent.pub"), "--second-key", str(folder / "audit.pub"), "--json"]
    assert main(["audit", "verify", str(folder / "state" / "audit" / "agent"), *words]) == 0
    (report,) = json.loads(capsys.readouterr().out)["logs"]
    assert (report["records"], report["uncovered"]) == (2, 0)


def test_its_signing_process_does_not_outlive_it(file: Path) -> None:
    with running(file) as agent:
        child = signing_child(agent.pid)
        agent.kill()
        agent.wait(20)
        give_up = time.monotonic() + 20
        while alive(child):
            assert time.monotonic() < give_up, "it is still there"
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda key: key.chmod(0o644), "trust.unsafe_file"),
        (lambda key: key.unlink(), "trust.missing_file"),
        (lambda key: key.write_bytes((key.parents[1] / "audit.pub").read_bytes()), "keystore.malformed"),
    ],
)
def test_a_second_key_that_cannot_be_used_is_refused_before_anything_is_begun(
    file: Path, capsys: pytest.CaptureFixture[str], change: object, code: str
) -> None:
    assert callable(change)
    change(file.parent / "keys" / "audit.1.key")
    for words in (["agent", "--config"], ["config", "check"]):
        assert main([*words, str(file)]) in (1, 2)
        assert capsys.readouterr().err.startswith(f"ringfence: {code} ")
    assert not (file.parent / "state").exists()
