"""What every sealer must do for a key store; a subclass brings the fixtures `sealer` and `other_host`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.crypto import COMPOSITE, signature
from ringfence.crypto.forms import Form, KeyMaterial, export_private
from ringfence.keystore import KeyStore, KeyStoreError, Sealer
from ringfence.trust import TrustError, load_private

NOW = 1_800_000_000
DAY = 86_400
SECRET = bytes(range(64))


class SealerContract:
    """`other_host` has the name of `sealer` and is on another host."""

    @pytest.mark.parametrize("size", [0, 5000])
    def test_what_was_sealed_comes_back(self, sealer: Sealer, size: int) -> None:
        secret = (SECRET * 80)[:size]
        sealed = sealer.seal(secret, b"place")
        assert sealer.unseal(sealed, b"place") == secret
        assert not secret or secret not in sealed

    def test_sealing_twice_gives_two_texts(self, sealer: Sealer) -> None:
        assert sealer.seal(SECRET, b"") != sealer.seal(SECRET, b"")

    def test_another_place_does_not_open_it(self, sealer: Sealer) -> None:
        sealed = sealer.seal(SECRET, b"place")
        for associated in (b"", b"place\0"):
            self.refused(sealer, sealed, associated)

    def test_altered_cut_or_lengthened_it_does_not_open(self, sealer: Sealer) -> None:
        sealed = sealer.seal(SECRET, b"place")
        step = max(1, len(sealed) // 10)
        for at in range(0, len(sealed), step):
            self.refused(sealer, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], b"place")
        for other in (b"", sealed[:1], sealed[: len(sealed) // 2], sealed[:-1], sealed + b"\0", sealed + b" ", SECRET):
            self.refused(sealer, other, b"place")
        assert sealer.unseal(sealed, b"place") == SECRET

    def refused(self, sealer: Sealer, sealed: bytes, associated: bytes) -> None:
        with pytest.raises(KeyStoreError) as caught:
            sealer.unseal(sealed, associated)
        assert caught.value.code.name == "keystore.unsealable"
        assert not any(SECRET[start : start + 8].hex() in str(caught.value) for start in range(0, 64, 8))

    def test_a_sealed_key_opens_on_its_host_alone(self, tmp_path: Path, sealer: Sealer, other_host: Sealer) -> None:
        key = KeyStore(tmp_path, sealer).generate("mine", COMPOSITE.name, now=NOW)
        assert key.sealed_by == sealer.name
        opened = KeyStore(tmp_path, sealer).open(key, now=NOW)
        assert opened.public == key.public
        raw = (tmp_path / key.file_name).read_bytes()
        assert raw.startswith(b"-----BEGIN RINGFENCE SEALED PRIVATE KEY-----")
        with pytest.raises(TrustError):
            load_private(tmp_path / key.file_name)
        with pytest.raises(KeyStoreError, match=r"keystore\.unsealable"):
            KeyStore(tmp_path, other_host).open(key, now=NOW)
        with pytest.raises(KeyStoreError, match=rf"keystore\.sealed.*sealed by '{sealer.name}'"):
            KeyStore(tmp_path).open(key, now=NOW)

    def test_a_sealed_key_does_not_open_in_another_place(self, tmp_path: Path, sealer: Sealer) -> None:
        """Bound to its name and version: an old version cannot be put in the place of a new one."""
        store = KeyStore(tmp_path, sealer)
        old = store.generate("mine", "Ed25519", now=NOW)
        new = store.rotate("mine", now=NOW, overlap_s=DAY)
        (tmp_path / new.file_name).write_bytes((tmp_path / old.file_name).read_bytes())
        with pytest.raises(KeyStoreError, match=r"keystore\.unsealable"):
            store.open(new, now=NOW)

    def test_a_key_that_was_sealed_cannot_be_replaced_by_one_in_the_clear(self, tmp_path: Path, sealer: Sealer) -> None:
        sealed = KeyStore(tmp_path, sealer)
        key = sealed.generate("mine", "Ed25519", now=NOW)
        clear = KeyMaterial("Ed25519", *signature("Ed25519").generate())
        (tmp_path / key.file_name).write_bytes(export_private(clear, Form.PEM))
        with pytest.raises(KeyStoreError, match=r"keystore\.malformed"):
            sealed.open(key, now=NOW)

    def test_keys_from_before_the_sealer_still_open(self, tmp_path: Path, sealer: Sealer) -> None:
        old = KeyStore(tmp_path).generate("mine", "Ed25519", now=NOW)
        store = KeyStore(tmp_path, sealer)
        assert store.open(old, now=NOW).public == old.public
        assert store.rotate("mine", now=NOW, overlap_s=DAY).sealed_by == sealer.name
