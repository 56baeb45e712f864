"""One-time pads: every key is used once at either end, and a source that does something else is not believed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ringfence.crypto import CryptoError
from ringfence.crypto.envelope import QuantumNative, open_envelope, seal_envelope
from ringfence.crypto.errors import CIPHERTEXT_INVALID, KEY_SPENT, KEY_UNAVAILABLE
from ringfence.crypto.pad import SharedKey
from ringfence.crypto.stream import CHUNK_SIZE
from ringfence.keystore import SpentKeys
from ringfence.keystore.link import MemoryLink

START = 13


class Forgetful(MemoryLink):
    """A faulty link that gives the same key out again and again."""

    def __init__(self) -> None:
        super().__init__(secrets.token_bytes)
        self.given: dict[str, SharedKey] = {}

    def get_key_with_ids(self, key_ids: Sequence[str]) -> Sequence[SharedKey]:
        for key_id in set(key_ids) - self.given.keys():
            (self.given[key_id],) = super().get_key_with_ids([key_id])
        return [self.given[key_id] for key_id in key_ids]


@dataclass
class Ledger:
    spent: set[str] = field(default_factory=set)

    def spend(self, key_id: str) -> None:
        if key_id in self.spent:
            raise CryptoError(KEY_SPENT, "The key was used before.")
        self.spent.add(key_id)


class Stuck(MemoryLink):
    """A faulty link whose every key is the same one."""

    def __init__(self) -> None:
        super().__init__(secrets.token_bytes)

    def get_key(self, number: int, size: int) -> Sequence[SharedKey]:
        assert (number, size) in ((1, 35), (1, 36))
        return [SharedKey("same", bytes(size))]

    def get_key_with_ids(self, key_ids: Sequence[str]) -> Sequence[SharedKey]:
        assert list(key_ids) == ["same"]
        return [SharedKey("same", bytes(36))]


class TestPads:
    def test_every_key_is_used_once_on_either_side(self) -> None:
        link, mine, theirs = Forgetful(), Ledger(), Ledger()
        sealed = seal_envelope(QuantumNative(link, mine), bytes(CHUNK_SIZE + 1))
        assert len(mine.spent) == 2
        open_envelope(QuantumNative(link, theirs), sealed)
        assert theirs.spent == mine.spent
        with pytest.raises(CryptoError) as caught:
            open_envelope(QuantumNative(link, theirs), sealed)
        assert caught.value.code is KEY_SPENT

    def test_a_key_that_comes_twice_never_meets_a_second_plaintext(self) -> None:
        link = QuantumNative(Stuck(), Ledger())
        seal_envelope(link, b"one")
        with pytest.raises(CryptoError) as caught:
            seal_envelope(link, b"two")
        assert caught.value.code is KEY_SPENT

    def test_a_key_that_opened_something_never_seals(self) -> None:
        link, site = Stuck(), Ledger()
        open_envelope(QuantumNative(link, site), seal_envelope(QuantumNative(link, Ledger()), b"text"))
        with pytest.raises(CryptoError) as caught:
            seal_envelope(QuantumNative(link, site), b"mine")
        assert caught.value.code is KEY_SPENT

    def test_a_forgery_costs_its_key(self) -> None:
        link = Forgetful()
        sealed = seal_envelope(QuantumNative(link, Ledger()), b"text")
        opening = QuantumNative(link, Ledger())
        for attempt, code in ((sealed[:-1] + bytes([sealed[-1] ^ 1]), CIPHERTEXT_INVALID), (sealed, KEY_SPENT)):
            with pytest.raises(CryptoError) as caught:
                open_envelope(opening, attempt)
            assert caught.value.code is code

    def test_a_key_of_another_length_than_the_chunk_is_spent_and_refused(self) -> None:
        link = Forgetful()
        sealed = seal_envelope(QuantumNative(link, Ledger()), b"text")
        length = int.from_bytes(sealed[START + 1 : START + 5], "big") - 1
        shorter = sealed[: START + 1] + length.to_bytes(4, "big") + sealed[START + 5 : -17] + sealed[-16:]
        site = Ledger()
        with pytest.raises(CryptoError) as caught:
            open_envelope(QuantumNative(link, site), shorter)
        assert caught.value.code is CIPHERTEXT_INVALID
        assert len(site.spent) == 1

    def test_the_durable_list_refuses_a_second_use_after_a_restart(self, tmp_path: Path) -> None:
        link = Forgetful()
        sealed = seal_envelope(QuantumNative(link, Ledger()), b"text")
        with SpentKeys(tmp_path / "spent") as spent:
            assert open_envelope(QuantumNative(link, spent), sealed) == b"text"
        with SpentKeys(tmp_path / "spent") as spent, pytest.raises(CryptoError) as caught:
            open_envelope(QuantumNative(link, spent), sealed)
        assert caught.value.code is KEY_SPENT

    @pytest.mark.parametrize("size", [33, 50, 1000])
    def test_chunks_fit_the_links_keys(self, size: int) -> None:
        link = MemoryLink(secrets.token_bytes, max_key_size=size)
        sealed = seal_envelope(QuantumNative(link, Ledger()), bytes(40))
        assert open_envelope(QuantumNative(link, Ledger()), sealed) == bytes(40)

    @pytest.mark.parametrize("size", [0, 32])
    def test_keys_that_are_too_short_are_refused(self, size: int) -> None:
        with pytest.raises(CryptoError) as caught:
            seal_envelope(QuantumNative(MemoryLink(secrets.token_bytes, max_key_size=size), Ledger()), b"")
        assert caught.value.code is KEY_UNAVAILABLE

    @pytest.mark.parametrize(
        "keys",
        [
            [],
            [SharedKey("a", bytes(36)), SharedKey("b", bytes(36))],
            [SharedKey("a", bytes(35))],
            [SharedKey("a", bytes(37))],
            [SharedKey("", bytes(36))],
            [SharedKey("a b", bytes(36))],
            [SharedKey("ä", bytes(36))],
            [SharedKey("a" * 65, bytes(36))],
        ],
    )
    def test_a_source_that_gives_something_else_is_not_believed(self, keys: list[SharedKey]) -> None:
        class Odd(Forgetful):
            def get_key(self, number: int, size: int) -> Sequence[SharedKey]:
                del number, size
                return keys

        ledger = Ledger()
        with pytest.raises(CryptoError) as caught:
            seal_envelope(QuantumNative(Odd(), ledger), b"text")
        assert caught.value.code is KEY_UNAVAILABLE
        assert not ledger.spent

    def test_a_source_that_opens_with_another_key_is_not_believed(self) -> None:
        class Odd(Forgetful):
            def get_key_with_ids(self, key_ids: Sequence[str]) -> Sequence[SharedKey]:
                del key_ids
                return [SharedKey("another", bytes(36))]

        link = Odd()
        sealed = seal_envelope(QuantumNative(link, Ledger()), b"text")
        with pytest.raises(CryptoError) as caught:
            open_envelope(QuantumNative(link, Ledger()), sealed)
        assert caught.value.code is KEY_UNAVAILABLE

    def test_the_ciphertext_is_the_plaintext_under_the_pad(self) -> None:
        """Read by hand from the documented format: XOR with the key's first bytes, Poly1305 with its last 32."""
        link = Forgetful()
        sealed = seal_envelope(QuantumNative(link, Ledger()), b"attack at dawn")
        body = sealed[START + 5 :]
        (secret,) = [key.secret for key in link.get_key_with_ids([body[1 : 1 + body[0]].decode()])]
        ciphertext = body[1 + body[0] : -16]
        assert bytes(a ^ b for a, b in zip(ciphertext, secret, strict=False)) == b"attack at dawn"


class TestMemoryLink:
    """The test source behaves as ETSI GS QKD 014 has it: each end gets a key once."""

    def test_the_other_end_gets_each_key_once(self) -> None:
        link = MemoryLink(secrets.token_bytes)
        one, two = link.get_key(2, 40)
        assert (len(one.secret), one.key_id != two.key_id, one.secret != two.secret) == (40, True, True)
        assert list(link.get_key_with_ids([two.key_id, one.key_id])) == [two, one]
        for asked in (one.key_id, "unknown"):
            with pytest.raises(CryptoError, match=r"crypto\.key_unavailable"):
                link.get_key_with_ids([asked])

    def test_nothing_is_given_where_one_key_is_missing_or_asked_for_twice(self) -> None:
        link = MemoryLink(secrets.token_bytes)
        (key,) = link.get_key(1, 40)
        for asked in ([key.key_id, "unknown"], [key.key_id, key.key_id]):
            with pytest.raises(CryptoError, match=r"crypto\.key_unavailable"):
                link.get_key_with_ids(asked)
        assert list(link.get_key_with_ids([key.key_id])) == [key]

    @pytest.mark.parametrize("size", [0, -1, 101])
    def test_a_size_out_of_range_is_refused(self, size: int) -> None:
        with pytest.raises(CryptoError, match=r"crypto\.key_unavailable"):
            MemoryLink(secrets.token_bytes, max_key_size=100).get_key(1, size)
