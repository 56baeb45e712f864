"""The key store: what it writes, what it believes, and what a rotation, a crash or a stolen disk leave."""

from __future__ import annotations

import os
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.config import ConfigError
from ringfence.crypto import COMPOSITE, CryptoError, seal, signature, unseal
from ringfence.crypto.envelope import (
    Author,
    PostQuantum,
    PostQuantumKeys,
    QuantumResistant,
    QuantumResistantKeys,
    RecipientKey,
    open_envelope,
    seal_envelope,
)
from ringfence.crypto.forms import ALGORITHMS, Form, KeyMaterial, export_private, import_private
from ringfence.keystore import Index, KeyStore, KeyStoreError, StoredKey
from ringfence.keystore.errors import UNSEALABLE
from ringfence.keystore.index import emit, parse
from ringfence.trust import TrustError, load_private
from tests.foundation.keystore.keystore_sealer_contract import DAY, NOW, SealerContract


@dataclass(frozen=True)
class HostSealer:
    """Stands where a TPM would: its key is this host's and is not on the disk."""

    key: bytes
    name: str = "test"

    def seal(self, secret: bytes, associated: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + seal(self.key, nonce, secret, associated)

    def unseal(self, sealed: bytes, associated: bytes) -> bytes:
        try:
            return unseal(self.key, sealed[:12], sealed[12:], associated)
        except CryptoError as error:
            raise KeyStoreError(UNSEALABLE, "The key does not open on this host.") from error


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path)


def material(algorithm: str = "Ed25519") -> KeyMaterial:
    return KeyMaterial(algorithm, *signature(algorithm).generate())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_of_every_algorithm_comes_back(tmp_path: Path, store: KeyStore, algorithm: str) -> None:
    made = store.generate("mine", algorithm, now=NOW)
    again = KeyStore(tmp_path)
    (held,) = again.usable("mine", now=NOW)
    assert held == made
    opened = again.open(held, now=NOW)
    assert (opened.algorithm, opened.public) == (algorithm, made.public)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["keys.toml", "mine.1.key"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_every_file_is_its_owners_alone(tmp_path: Path, store: KeyStore, umask: int) -> None:
    previous = os.umask(umask)
    try:
        store.generate("mine", "Ed25519", now=NOW)
        store.rotate("mine", now=NOW, overlap_s=DAY)
    finally:
        os.umask(previous)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["keys.toml", "mine.1.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_files_that_others_may_use_are_not_used(tmp_path: Path, store: KeyStore, name: str, mode: int) -> None:
    key = store.generate("mine", "Ed25519", now=NOW)
    (tmp_path / name).chmod(mode)
    with pytest.raises(TrustError, match=r"trust\.unsafe_file"):
        store.open(store.usable(key.name, now=NOW)[0], now=NOW)


def test_the_daemons_read_a_composite_key_as_it_lies(tmp_path: Path, store: KeyStore) -> None:
    key = store.generate("gateway", COMPOSITE.name, now=NOW)
    assert load_private(tmp_path / "gateway.1.key").public == key.public


def test_other_tools_read_the_other_keys_as_they_lie(tmp_path: Path, store: KeyStore) -> None:
    key = store.generate("mine", "Ed25519", now=NOW)
    assert import_private((tmp_path / "mine.1.key").read_bytes()).public == key.public


class TestRotation:
    def test_what_was_sealed_to_the_old_key_opens_until_it_retires(self, store: KeyStore) -> None:
        old = store.generate("inbox", "X-Wing", now=NOW)
        sealed = seal_envelope(PostQuantum(old.public), b"text")
        new = store.rotate("inbox", now=NOW, overlap_s=DAY)
        assert (new.version, new.algorithm, new.key_id != old.key_id) == (2, "X-Wing", True)

        def keys(now: int) -> tuple[RecipientKey, ...]:
            opened = (store.open(key, now=now) for key in store.usable("inbox", now=now))
            return tuple(RecipientKey(key.public, key.private) for key in opened)

        assert [key.public for key in keys(NOW + DAY - 1)] == [new.public, old.public]
        assert open_envelope(PostQuantumKeys(keys(NOW + DAY - 1)), sealed) == b"text"
        with pytest.raises(CryptoError, match=r"crypto\.ciphertext_invalid"):
            open_envelope(PostQuantumKeys(keys(NOW + DAY)), sealed)

    def test_a_retired_version_does_not_open(self, store: KeyStore) -> None:
        store.generate("mine", "Ed25519", now=NOW)
        store.rotate("mine", now=NOW, overlap_s=DAY)
        old = store.usable("mine", now=NOW)[1]
        store.open(old, now=NOW + DAY - 1)
        with pytest.raises(KeyStoreError, match=r"keystore\.retired"):
            store.open(old, now=NOW + DAY)

    def test_pruning_erases_what_has_retired_and_nothing_else(self, tmp_path: Path, store: KeyStore) -> None:
        for name in ("mine", "yours"):
            store.generate(name, "Ed25519", now=NOW)
        store.rotate("mine", now=NOW, overlap_s=DAY)
        assert store.prune(now=NOW + DAY - 1) == ()
        (gone,) = store.prune(now=NOW + DAY)
        assert (gone.name, gone.version) == ("mine", 1)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["keys.toml", "mine.2.key", "yours.1.key"]
        assert [(key.name, key.version) for key in store.index().keys] == [("yours", 1), ("mine", 2)]

    def test_an_erased_file_is_overwritten_first(self, tmp_path: Path, store: KeyStore) -> None:
        store.generate("mine", "Ed25519", now=NOW)
        (tmp_path / "mine.1.key").touch()
        with open(tmp_path / "mine.1.key", "rb") as held:
            size = os.fstat(held.fileno()).st_size
            store.rotate("mine", now=NOW, overlap_s=0)
            assert held.read() == bytes(size)
        assert not (tmp_path / "mine.1.key").exists()

    def test_versions_go_on(self, store: KeyStore) -> None:
        store.generate("mine", "Ed25519", now=NOW)
        for day in range(3):
            store.rotate("mine", now=NOW + day * DAY, overlap_s=2 * DAY)
        assert [key.version for key in store.usable("mine", now=NOW + 2 * DAY)] == [4, 3, 2]

    def test_a_key_made_elsewhere_may_come_next(self, store: KeyStore) -> None:
        store.generate("mine", "Ed25519", now=NOW)
        given_key = material("ML-DSA-65")
        key = store.rotate("mine", now=NOW, overlap_s=DAY, material=given_key)
        assert (key.algorithm, store.open(key, now=NOW)) == ("ML-DSA-65", given_key)

    def test_rotating_or_asking_for_nothing_is_an_error(self, tmp_path: Path, store: KeyStore) -> None:
        for attempt in (
            lambda: store.rotate("mine", now=NOW, overlap_s=DAY),
            lambda: store.usable("mine", now=NOW),
        ):
            with pytest.raises(KeyStoreError, match=r"keystore\.no_such_key"):
                attempt()
        assert not list(tmp_path.iterdir())


class TestRefusals:
    def test_a_key_is_never_overwritten(self, store: KeyStore) -> None:
        key = store.generate("mine", "Ed25519", now=NOW)
        with pytest.raises(KeyStoreError, match=r"keystore\.exists"):
            store.generate("mine", "X-Wing", now=NOW)
        assert store.usable("mine", now=NOW) == (key,)

    def test_an_index_that_was_lost_does_not_cost_the_keys(self, tmp_path: Path, store: KeyStore) -> None:
        store.generate("mine", "Ed25519", now=NOW)
        (tmp_path / "keys.toml").unlink()
        before = (tmp_path / "mine.1.key").read_bytes()
        assert store.generate("mine", "Ed25519", now=NOW).version == 2
        assert (tmp_path / "mine.1.key").read_bytes() == before

    @pytest.mark.parametrize("name", ["", "..", "a/b", "a.b", "-a", "a b", "a\n", "ä", "a" * 65])
    def test_a_name_that_is_no_plain_one_is_refused(self, tmp_path: Path, store: KeyStore, name: str) -> None:
        with pytest.raises(KeyStoreError, match=r"keystore\.malformed"):
            store.generate(name, "Ed25519", now=NOW)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("algorithm", ["RSA", "BIKE-L1", ""])
    def test_an_algorithm_whose_keys_are_not_kept_is_refused(
        self, tmp_path: Path, store: KeyStore, algorithm: str
    ) -> None:
        with pytest.raises(CryptoError, match=r"crypto\.algorithm_unknown"):
            store.generate("mine", algorithm, now=NOW)
        assert not list(tmp_path.iterdir())

    def test_a_swapped_or_spoiled_file_is_noticed(self, tmp_path: Path, store: KeyStore) -> None:
        one, two = (store.generate(name, "Ed25519", now=NOW) for name in ("one", "two"))
        path = tmp_path / one.file_name
        whole = path.read_bytes()
        path.write_bytes((tmp_path / two.file_name).read_bytes())
        with pytest.raises(KeyStoreError, match=r"keystore\.malformed.*another key"):
            store.open(one, now=NOW)
        for spoiled in (b"", whole[:-40], whole + whole):
            path.write_bytes(spoiled)
            with pytest.raises(KeyStoreError, match=r"keystore\.malformed"):
                store.open(one, now=NOW)
        path.unlink()
        with pytest.raises(TrustError, match=r"trust\.missing_file"):
            store.open(one, now=NOW)

    def test_a_key_of_another_algorithm_in_its_place_is_noticed(self, tmp_path: Path, store: KeyStore) -> None:
        key = store.generate("mine", "X25519", now=NOW)
        (tmp_path / key.file_name).write_bytes(export_private(material("Ed25519"), Form.PEM))
        with pytest.raises(KeyStoreError, match=r"keystore\.malformed"):
            store.open(key, now=NOW)

    def test_private_keys_are_in_no_repr_index_or_error(self, tmp_path: Path, store: KeyStore) -> None:
        key = store.generate("mine", COMPOSITE.name, now=NOW)
        opened = store.open(key, now=NOW)
        text = (tmp_path / key.file_name).read_text().split("\n")[1]
        assert text[:40] not in (tmp_path / "keys.toml").read_text()
        assert repr(opened.private) not in repr(opened)
        (tmp_path / key.file_name).write_text(text)
        with pytest.raises(KeyStoreError) as caught:
            store.open(key, now=NOW)
        assert text[:20] not in f"{caught.value!r} {caught.value}"


class TestSealing(SealerContract):
    @pytest.fixture
    def sealer(self) -> HostSealer:
        return HostSealer(bytes(range(32)))

    @pytest.fixture
    def other_host(self) -> HostSealer:
        return HostSealer(bytes(32))

    def test_a_sealer_of_another_name_is_not_asked(self, tmp_path: Path, sealer: HostSealer) -> None:
        key = KeyStore(tmp_path, sealer).generate("mine", "Ed25519", now=NOW)
        with pytest.raises(KeyStoreError, match=r"keystore\.sealed.*sealed by 'test'"):
            KeyStore(tmp_path, HostSealer(sealer.key, "another")).open(key, now=NOW)


def test_an_author_and_a_recipient_from_the_store(store: KeyStore) -> None:
    author = store.open(store.generate("author", "SLH-DSA-SHA2-128f", now=NOW), now=NOW)
    inbox = store.open(store.generate("inbox", "X-Wing", now=NOW), now=NOW)
    algorithm = signature(author.algorithm)
    sealed = seal_envelope(
        QuantumResistant(inbox.public, Author(algorithm, author.public, author.private)), b"text", info=b"a report"
    )
    keys = QuantumResistantKeys((RecipientKey(inbox.public, inbox.private),), algorithm, (author.public,))
    assert open_envelope(keys, sealed, info=b"a report") == b"text"


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def add(number: int) -> None:
        start.wait()
        KeyStore(tmp_path).generate(f"key-{number}", "Ed25519", now=NOW)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(KeyStore(tmp_path).index().keys) == 6


@pytest.mark.parametrize("written", ["nothing", "the key file", "the index"])
def test_a_crash_leaves_the_old_store_or_the_new_one(tmp_path: Path, store: KeyStore, written: str) -> None:
    """A rotation writes the new key's file, then the index, then erases: whatever was reached, the store works."""
    store.generate("mine", "Ed25519", now=NOW)
    before = (tmp_path / "keys.toml").read_bytes()
    store.rotate("mine", now=NOW, overlap_s=DAY)
    if written != "the index":
        (tmp_path / "keys.toml").write_bytes(before)
    if written == "nothing":
        (tmp_path / "mine.2.key").unlink()
    for key in store.usable("mine", now=NOW):
        store.open(key, now=NOW)
    new = store.rotate("mine", now=NOW, overlap_s=DAY)
    assert new.version == {"nothing": 2, "the key file": 3, "the index": 3}[written]
    assert store.open(new, now=NOW).public == new.public


def entry(**changed: str) -> bytes:
    key = StoredKey("mine", 1, "Ed25519", bytes(32), NOW)
    (values,) = tomllib.loads(emit(Index((key,))).decode())["key"]
    lines = {name: f'"{value}"' if isinstance(value, str) else str(value) for name, value in values.items()}
    return (
        "version = 1\n[[key]]\n" + "".join(f"{name} = {value}\n" for name, value in {**lines, **changed}.items())
    ).encode()


@pytest.mark.parametrize(
    "data",
    [
        entry(version="0"),
        entry(version='"1"'),
        entry(name='"../etc"'),
        entry(name='"a\\u0000"'),
        entry(algorithm='"RSA"'),
        entry(key_id='"rf1other"'),
        entry(public_key='"?"'),
        entry(created_at="-1"),
        entry(trusted="true"),
        entry(retires_at="5"),
        entry() + entry().removeprefix(b"version = 1\n"),
        entry() + entry(version="2").removeprefix(b"version = 1\n"),
        entry(version="2", retires_at="5") + entry().removeprefix(b"version = 1\n"),
        b"version = 2\n",
        b"\xff",
    ],
)
def test_an_index_that_cannot_be_meant_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "keys.toml").write_bytes(data)
    (tmp_path / "keys.toml").chmod(0o600)
    with pytest.raises((ConfigError, KeyStoreError)) as caught:
        KeyStore(tmp_path).index()
    assert "keys.toml" in caught.value.message


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)
TIMES = st.integers(0, 253_402_300_799)


@st.composite
def indices(draw: st.DrawFn) -> Index:
    keys = []
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        algorithm, versions = draw(st.sampled_from(ALGORITHMS)), sorted(draw(st.sets(st.integers(1, 99), min_size=1)))
        for version in versions:
            retires = draw(TIMES) if version != versions[-1] else None
            sealed_by = draw(st.sampled_from(["", "tpm", 'a "quoted" one']))
            keys.append(StoredKey(name, version, algorithm, draw(st.binary()), draw(TIMES), retires, sealed_by))
    return Index(tuple(keys))


@given(indices())
@settings(deadline=None)
def test_every_index_comes_back_from_its_file(index: Index) -> None:
    assert parse(emit(index), "keys.toml") == index


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_one_family_of_errors(data: bytes) -> None:
    with pytest.raises((ConfigError, KeyStoreError)):
        parse(data, "keys.toml")
