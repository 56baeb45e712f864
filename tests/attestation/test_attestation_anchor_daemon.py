"""A daemon whose `[audit] anchor` names a counter: a real TPM shows that its log was cut back."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from ringfence.attestation.anchoring import configured_anchor, define_anchor
from ringfence.audit import AuditError
from ringfence.config.audit_section import AuditSettings, SecretFile
from ringfence.keystore.daemon_log import open_daemon_log
from ringfence.trust import KeyPair
from ringfence.trust.keys import generate


def _live_once(state: Path, signer: KeyPair, settings: AuditSettings) -> None:
    anchor = configured_anchor(settings.anchor.path, signer.key_id)
    with open_daemon_log(state, "agent", signer, settings, clock_ns=time.time_ns, anchor=anchor):
        pass


def test_a_log_that_was_cut_back_is_refused_by_its_daemon(tmp_path: Path, tcti: str) -> None:
    (tmp_path / "keys").mkdir()
    signer = generate(tmp_path / "keys", "agent")
    file = tmp_path / "anchor.toml"
    define_anchor(file, signer.key_id, tcti, random=os.urandom, index=0x01805240)
    settings = AuditSettings(anchor=SecretFile(str(file)))
    state = tmp_path / "state"
    _live_once(state, signer, settings)
    shutil.copytree(state, tmp_path / "older")
    _live_once(state, signer, settings)
    shutil.rmtree(state)
    (tmp_path / "older").rename(state)
    with pytest.raises(AuditError) as caught:
        _live_once(state, signer, settings)
    assert caught.value.code.name == "audit.rolled_back"


def test_without_an_anchor_none_is_asked(tmp_path: Path) -> None:
    assert configured_anchor(AuditSettings().anchor.path, "rf1test") is None
    assert list(tmp_path.iterdir()) == []
