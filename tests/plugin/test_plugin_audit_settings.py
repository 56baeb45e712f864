"""A real gateway whose file has an `[audit]` table: its log is signed by both keys, and verifies offline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.cli import main
from ringfence.trust import TrustList, generate, save

CONFIGURATION = """\
component = "gateway"
listen = "unix:gateway.sock"
state = "state"
key = "gateway.key"
verifier_key = "verifier.key"
trust = "trust.toml"
policies = "default"

[host]
socket = "agent.sock"
agent = "rf1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

[audit]
checkpoint_every_s = 0.01
second_key = "keys/audit.1.key"
second_every_s = 1
"""


def test_a_gateway_s_log_verifies_with_both_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path, "gateway")
    generate(tmp_path, "verifier")
    save(tmp_path / "trust.toml", TrustList())
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    assert main(["keys", "generate", "audit", "--store", str(keys), "--algorithm", "SLH-DSA-SHA2-128f"]) == 0
    assert main(["keys", "export", "audit", "--store", str(keys), "--out", str(tmp_path / "audit.pub")]) == 0
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIGURATION)
    words = [sys.executable, "-m", "ringfence.cli", "gateway", "--config", str(file)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as gateway:
        assert gateway.stderr is not None
        try:
            assert any("ready on" in line for line in gateway.stderr)
            (child,) = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
            # As a service manager does it, to every process of the unit.
            os.kill(int(child), signal.SIGTERM)
            gateway.terminate()
            assert gateway.wait(20) == 0
        finally:
            gateway.kill()
    assert not Path(f"/proc/{child}").exists()
    capsys.readouterr()
    logged = tmp_path / "state" / "audit" / "gateway"
    pinned = ["--key", str(tmp_path / "gateway.pub"), "--second-key", str(tmp_path / "audit.pub"), "--json"]
    assert main(["audit", "verify", str(logged), *pinned]) == 0
    (report,) = json.loads(capsys.readouterr().out)["logs"]
    assert report["checkpoints_second_key"] >= 2
    assert report["uncovered"] == 0
    assert main(["audit", "show", str(logged), "--kind", "operator", "--json"]) == 0
    shown = [line["data"]["event"] for line in json.loads(capsys.readouterr().out)["records"]]
    # The sessions are kept for a restart when the gateway stops: a snapshot is begun, and is complete.
    assert shown == ["started", "policies", "configuration", "configuration", "stopped"]
