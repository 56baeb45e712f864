"""HPKE's key schedule, against the library's own single-shot HPKE."""

from __future__ import annotations

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.crypto import kem
from ringfence.crypto.exporter import schedule_from, schedule_to


class TestSchedule:
    """HPKE's key schedule, against the library's own single-shot HPKE."""

    @given(info=st.binary(max_size=100), plaintext=st.binary(max_size=100))
    @settings(max_examples=20, deadline=None)
    def test_it_opens_what_the_library_sealed(self, info: bytes, plaintext: bytes) -> None:
        public, private = kem("X-Wing").generate()
        key = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:1184]), X25519PublicKey.from_public_bytes(public[1184:])
        )
        suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        sealed = suite.encrypt(plaintext, key, info=info)
        schedule = schedule_from(private, sealed[:1120], info)
        opener = AESGCM(schedule.expand(b"key", 32))
        assert opener.decrypt(schedule.expand(b"base_nonce", 12), sealed[1120:], b"") == plaintext

    def test_both_sides_export_the_same_and_each_purpose_differs(self) -> None:
        public, private = kem("X-Wing").generate()
        encapsulated, sender = schedule_to(public, b"info")
        assert schedule_from(private, encapsulated, b"info") == sender
        assert schedule_from(private, encapsulated, b"other") != sender
        assert len({sender.export(b"a", 32), sender.export(b"b", 32), sender.expand(b"a", 32)}) == 3
