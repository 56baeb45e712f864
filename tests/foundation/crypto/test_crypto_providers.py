"""Providers: the search through the list, agreement wherever two have one algorithm, and `ringfence crypto list`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pytest

from ringfence.cli import main
from ringfence.crypto import AdditionalShare, CryptoError, bike
from ringfence.crypto.catalogue import entries
from ringfence.crypto.combiner import combine
from ringfence.crypto.offers import Family
from ringfence.crypto.ports import Provider
from ringfence.crypto.providers import PROVIDERS, provider_of
from ringfence.crypto.providers.liboqs import Liboqs
from ringfence.crypto.providers.liboqs_probe import Probe
from ringfence.crypto.providers.own import Own
from ringfence.crypto.providers.pqcrypto import Pqcrypto
from ringfence.crypto.providers.pyca import Pyca


class FakeOqs:
    """liboqs-python's interface over the other providers, as careless about lengths as the real one."""

    calls = 0

    @staticmethod
    def is_kem_enabled(name: str) -> bool:
        return name != "BIKE-L5"

    @staticmethod
    def is_sig_enabled(name: str) -> bool:
        return name == "SLH_DSA_PURE_SHA2_128F"

    class _Algorithm:
        def __init__(self, name: str, secret_key: bytes = b"") -> None:
            FakeOqs.calls += 1
            self.name = name
            self.private = secret_key

        def __enter__(self) -> Self:
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            self.private = b""

        def export_secret_key(self) -> bytes:
            return self.private

    class KeyEncapsulation(_Algorithm):
        def generate_keypair(self) -> bytes:
            key = bike.generate(bike.level(self.name), bytes(32), bytes(32))
            self.private = key.encode()
            return key.public

        def generate_keypair_seed(self, seed: bytes) -> bytes:
            self.private = seed
            key: Any = Pyca().kem("ML-KEM-768").decapsulation_key(seed)
            public: bytes = key.key.public_key().public_bytes_raw()
            return public

        def encap_secret(self, public: bytes) -> tuple[bytes, bytes]:
            if self.name != "ML-KEM-768":
                return bike.encapsulate(bike.level(self.name), public, bytes(32))
            try:
                return Pyca().kem(self.name).encapsulate(public)
            except CryptoError:
                raise RuntimeError("Can not encapsulate secret") from None

        def decap_secret(self, ciphertext: bytes) -> bytes:
            if self.name == "ML-KEM-768":
                return Pyca().kem(self.name).decapsulate(self.private, ciphertext)
            return bike.decapsulate(bike.PrivateKey.decode(bike.level(self.name), self.private), ciphertext)

    class Signature(_Algorithm):
        def generate_keypair(self) -> bytes:
            public, self.private = Pqcrypto().signature("SLH-DSA-SHA2-128f").generate()
            return public

        def sign_with_ctx_str(self, message: bytes, context: bytes) -> bytes:
            return Pqcrypto().signature("SLH-DSA-SHA2-128f").sign(self.private, message, context)

        def verify_with_ctx_str(self, message: bytes, signature: bytes, context: bytes, public: bytes) -> bool:
            try:
                Pqcrypto().signature("SLH-DSA-SHA2-128f").verify(public, message, signature, context)
            except CryptoError:
                return False
            return True


FAKE = Liboqs(lambda: Probe(FakeOqs, ""))
ABSENT = Liboqs(lambda: Probe(None, "it is not there"))


def pairs(providers: tuple[Provider, ...]) -> Iterator[tuple[Provider, Provider, str, Family]]:
    """Every ordered pair of usable providers of one algorithm."""
    for first, second in itertools.permutations(providers, 2):
        offered = {(offer.name, offer.family) for offer in second.offers if not second.absence(offer.name)}
        for offer in first.offers:
            if (offer.name, offer.family) in offered and not first.absence(offer.name):
                yield first, second, offer.name, offer.family


def agree_as_kems(first: Provider, second: Provider, name: str) -> None:
    one, other = first.kem(name), second.kem(name)
    public, private = one.generate()
    ciphertext, sent = other.encapsulate(public)
    assert plain(one.decapsulate(private, ciphertext)) == plain(sent)
    assert plain(other.decapsulate(private, ciphertext)) == plain(sent)
    altered = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert plain(one.decapsulate(private, altered)) == plain(other.decapsulate(private, altered)) != plain(sent)
    for algorithm in (one, other):
        for wrong in (public[:-1], public + b"\0", b""):
            with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
                algorithm.encapsulate(wrong)
        for wrong in (private[:-1], private + b"\0", b""):
            with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
                algorithm.decapsulate(wrong, ciphertext)
        for wrong in (ciphertext[:-1], ciphertext + b"\0", b""):
            with pytest.raises(CryptoError, match=r"crypto\.ciphertext_invalid"):
                algorithm.decapsulate(private, wrong)
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            algorithm.encapsulate(b"\xff" * len(public))


def plain(secret: bytes | AdditionalShare) -> bytes:
    return combine(b"", bytes(32), [secret]) if isinstance(secret, AdditionalShare) else secret


def agree_as_signatures(first: Provider, second: Provider, name: str) -> None:
    one, other = first.signature(name), second.signature(name)
    public, private = one.generate()
    assert other.public(private) == public
    for message, context in ((b"", b""), (b"message", b"context"), (bytes(5000), bytes(255))):
        other.verify(public, message, one.sign(private, message, context), context)
        signed = other.sign(private, message, context)
        one.verify(public, message, signed, context)
        for algorithm in (one, other):
            for wrong in (signed[:-1], b"", signed[:-1] + bytes([signed[-1] ^ 1])):
                with pytest.raises(CryptoError, match=r"crypto\.signature_invalid"):
                    algorithm.verify(public, message, wrong, context)
            with pytest.raises(CryptoError, match=r"crypto\.signature_invalid"):
                algorithm.verify(public, message + b"\0", signed, context)
            with pytest.raises(CryptoError, match=r"crypto\.context_too_long"):
                algorithm.sign(private, message, bytes(256))


def check(providers: tuple[Provider, ...]) -> int:
    count = 0
    for first, second, name, family in pairs(providers):
        (agree_as_kems if family is Family.KEM else agree_as_signatures)(first, second, name)
        count += 1
    return count


def test_the_providers_of_this_host_agree_with_each_other() -> None:
    """Without liboqs here there is no second provider of anything; with it there are six algorithms of two."""
    count = check(tuple(PROVIDERS))
    print(f"{count} ordered pairs of providers agree")
    assert count == 2 * sum(not Liboqs().absence(offer.name) for offer in Liboqs().offers)


def test_the_liboqs_adapter_meets_the_contract_over_a_careless_library() -> None:
    assert check((Pyca(), Pqcrypto(), FAKE, Own())) == 2 * 4


def test_the_liboqs_adapter_calls_the_library_with_nothing_it_has_not_checked() -> None:
    algorithm = FAKE.kem("BIKE-L1")
    public, private = algorithm.generate()
    verifying = FAKE.signature("SLH-DSA-SHA2-128f").verifying_key(bytes(32))
    before = FakeOqs.calls
    with pytest.raises(CryptoError, match=r"crypto\.signature_invalid"):
        verifying.verify(b"message", bytes(17087))
    outside = (12323).to_bytes(4, "little") + private[4:]
    with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
        algorithm.decapsulate(outside, bytes(1573))
    with pytest.raises(CryptoError, match=r"crypto\.ciphertext_invalid"):
        algorithm.decapsulate(private, bytes(1540) + b"\xff" + bytes(32))
    with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
        algorithm.encapsulate(public[:-1] + b"\xff")
    assert FakeOqs.calls == before


def test_liboqs_goes_before_our_own_bike_and_after_cryptography() -> None:
    providers = (Pyca(), Pqcrypto(), FAKE, Own())
    chosen = {name: provider_of(name, Family.KEM, providers).name for name in ("ML-KEM-768", "BIKE-L1", "BIKE-L5")}
    assert chosen == {"ML-KEM-768": "cryptography", "BIKE-L1": "liboqs", "BIKE-L5": "ringfence"}
    assert provider_of("SLH-DSA-SHA2-128f", Family.SIGNATURE, providers).name == "pqcrypto"


def test_where_no_provider_is_there_each_says_why() -> None:
    with pytest.raises(CryptoError, match=r"crypto\.provider_absent.*BIKE-L1 \(liboqs: it is not there\)"):
        provider_of("BIKE-L1", Family.KEM, (Pyca(), ABSENT))


def test_a_provider_refuses_what_it_is_not_there_for() -> None:
    with pytest.raises(CryptoError, match=r"crypto\.algorithm_unknown"):
        Pqcrypto().kem("ML-KEM-768")
    with pytest.raises(CryptoError, match=r"crypto\.algorithm_unknown"):
        Own().signature("Ed25519")


def test_every_offer_can_be_had_under_its_name() -> None:
    for provider in (Pyca(), Pqcrypto(), FAKE, Own()):
        for offer in provider.offers:
            if offer.family is Family.KEM:
                assert provider.kem(offer.name).name == offer.name
            else:
                assert provider.signature(offer.name).name == offer.name


def test_the_list_marks_one_provider_of_each_algorithm() -> None:
    for providers in (tuple(PROVIDERS), (Pyca(), Pqcrypto(), FAKE, Own()), (Pyca(), Pqcrypto(), ABSENT, Own())):
        rows = entries(providers)
        used = [entry.offer.name for entry in rows if entry.used]
        assert sorted(used) == sorted({entry.offer.name for entry in rows})
        assert not any(entry.used and entry.absence for entry in rows)


def test_list_shows_provider_standard_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crypto", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["algorithms"]
    used = {row["name"]: (row["provider"], row["standard"], row["status"]) for row in rows if row["used"]}
    assert used["ML-KEM-768"] == ("cryptography", "FIPS 203", "standard")
    assert used["SLH-DSA-SHA2-128s"] == ("pqcrypto", "FIPS 205", "standard")
    assert used["X-Wing"][2] == "draft"
    assert used["BIKE-L1"][2] == "experimental"
    assert all((row["status"] == "unavailable") == bool(row["reason"]) for row in rows)
    assert main(["crypto", "list"]) == 0
    text = capsys.readouterr().out
    assert all(f"*  {name}" in text for name in used)
    assert ("Unavailable, and why:" in text) == any(row["reason"] for row in rows)
