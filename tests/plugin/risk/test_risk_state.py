"""Signed state: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ringfence.crypto import COMPOSITE
from ringfence.plugin.risk import snapshot
from ringfence.plugin.risk.errors import RiskError
from ringfence.plugin.risk.files import read_state, write_state
from ringfence.plugin.risk.state import State, open_state, seal_state
from ringfence.trust import KeyPair
from tests.plugin.risk.risk_bench import SETTINGS, USUAL, known

SIGNER, OTHER = (KeyPair(*COMPOSITE.generate()) for _ in range(2))
KEYS = {SIGNER.key_id: SIGNER.public}
STATE = State("baselines", 7, 1_790_000_000, b"payload")
SEALED = seal_state(STATE, SIGNER)


def refused(data: bytes, code: str, *, kind: str = "baselines", newest: int = 0) -> RiskError:
    with pytest.raises(RiskError) as caught:
        open_state(data, kind, keys=KEYS, newest=newest)
    assert caught.value.code.name == code
    assert "payload" not in str(caught.value)
    return caught.value


def changed(index: int, value: object) -> bytes:
    """The sealed state with another value at one place."""
    fields = list(msgspec.msgpack.decode(SEALED))
    fields[index] = value
    return msgspec.msgpack.encode(fields)


def test_a_sealed_state_opens() -> None:
    assert open_state(SEALED, "baselines", keys=KEYS, newest=7) == STATE
    assert "payload" not in repr(STATE)


@pytest.mark.parametrize(
    ("index", "value", "code"),
    [
        (0, "ringfence.other", "risk.state_malformed"),
        (1, 2, "risk.state_version"),
        (2, "devices", "risk.state_malformed"),
        (3, 8, "risk.state_forged"),
        (3, 0, "risk.state_malformed"),
        (4, 1, "risk.state_forged"),
        (5, OTHER.key_id, "risk.state_forged"),
        (6, b"another", "risk.state_forged"),
        (7, b"", "risk.state_forged"),
    ],
)
def test_every_field_is_covered(index: int, value: object, code: str) -> None:
    refused(changed(index, value), code)


def test_another_key_another_kind_and_no_signature_are_refused() -> None:
    forged = refused(seal_state(STATE, OTHER), "risk.state_forged")
    assert "Move the file away" in forged.hint
    refused(SEALED, "risk.state_malformed", kind="devices")
    refused(msgspec.msgpack.encode(msgspec.msgpack.decode(SEALED)[:7]), "risk.state_malformed")


def test_an_older_generation_than_is_known_is_refused() -> None:
    refused(SEALED, "risk.state_rolled_back", newest=8)


def test_bytes_behind_the_state_and_other_spellings_are_refused() -> None:
    refused(SEALED + b"\0", "risk.state_malformed")
    # The same values with the generation in a longer form than needed.
    head, _, tail = SEALED.partition(b"\xa9baselines\x07")
    refused(head + b"\xa9baselines\xcc\x07" + tail, "risk.state_malformed")


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
@settings(deadline=None, max_examples=60)
def test_no_flipped_byte_is_believed(place: int, flip: int) -> None:
    data = bytearray(SEALED)
    data[place] ^= flip
    with pytest.raises(RiskError):
        open_state(bytes(data), "baselines", keys=KEYS)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_arbitrary_bytes_are_refused_with_a_code(data: bytes) -> None:
    for read in (lambda: open_state(data, "baselines", keys=KEYS), lambda: snapshot.restored(data)):
        with pytest.raises(RiskError):
            read()


def test_a_restored_assessor_scores_like_the_one_that_was_saved() -> None:
    assessor, now = known()
    for _ in range(3):
        assessor.refused("alice", authenticated=True, now=now)
    payload = snapshot.payload(assessor, snapshot.entries(assessor))
    restored = snapshot.restored(payload, SETTINGS)
    assert snapshot.payload(restored, snapshot.entries(restored)) == payload
    for size in (4096, 2**40):
        asked = replace(USUAL, size=size, now=now)
        assert restored.assess(asked) == assessor.assess(asked)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seen", float("nan")),
        ("size_mean", float("inf")),
        ("refusals", 1e9),
        ("refusals", -1.0),
        ("moments", b""),
        ("moments", b"\xff" * 124),
        ("usual", {"a": float("nan")}),
        ("usual", {str(number): 1.0 for number in range(17)}),
        ("forest", 101),
        ("at", -1),
    ],
)
def test_a_payload_with_a_number_that_cannot_be_is_refused(field: str, value: object) -> None:
    assessor, _ = known()
    baseline = assessor.baseline("alice")
    setattr(baseline, field, value)
    with pytest.raises(RiskError, match=r"risk\.state_malformed"):
        snapshot.restored(snapshot.payload(assessor, snapshot.entries(assessor)))


def test_a_principal_that_is_there_twice_is_refused() -> None:
    assessor, _ = known()
    entries = list(snapshot.entries(assessor))
    with pytest.raises(RiskError, match="twice"):
        snapshot.restored(snapshot.payload(assessor, entries * 2))


def test_a_file_is_replaced_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "risk" / "baselines.state"
    assert read_state(path) is None
    for data in (SEALED, b"second"):
        write_state(path, data)
        assert read_state(path) == data
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [path.name]


def test_a_file_that_others_may_write_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "baselines.state"
    write_state(path, SEALED)
    path.chmod(0o622)
    folder, link, fifo = tmp_path / "folder", tmp_path / "link", tmp_path / "fifo"
    folder.mkdir()
    link.symlink_to(path)
    os.mkfifo(fifo)
    for unsafe in (path, folder, link, fifo):
        with pytest.raises(RiskError, match=r"risk\.state_unreadable"):
            read_state(unsafe)


def test_a_file_that_cannot_be_written_is_an_error_with_a_code(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RiskError, match=r"risk\.state_unwritable"):
        write_state(tmp_path / "file" / "baselines.state", SEALED)
