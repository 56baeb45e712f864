"""KEMs and HPKE against vectors that nobody here wrote; each test prints how many it checked (`pytest -rP`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ringfence.crypto import CryptoError, aead, bike, hpke, kem
from ringfence.crypto.bike.ring import invert, multiply, polynomial
from ringfence.crypto.symmetric import hkdf_expand, hkdf_extract

Cases = Callable[[str], Iterator[dict[str, str]]]
Groups = Callable[[str, str], Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]]
MLKEM = kem("ML-KEM-768")
HYBRID = kem("MLKEM768-X25519")


def checked(what: str, count: int, expected: int) -> None:
    print(f"{count} vectors checked: {what}")
    assert count == expected


def fits(public: bytes, private: bytes) -> bool:
    """Whether the two are one ML-KEM-768 key pair."""
    ciphertext, secret = MLKEM.encapsulate(public)
    return MLKEM.decapsulate(private, ciphertext) == secret


def test_ml_kem_known_answers_with_their_implicit_rejections(pyca_cases: Cases) -> None:
    count = 0
    for case in pyca_cases("asymmetric/MLKEM/kat_MLKEM_768.rsp"):
        value = {name: bytes.fromhex(text) for name, text in case.items()}
        key = MLKEM.decapsulation_key(value["d"] + value["z"])
        assert key.decapsulate(value["ct"]) == value["ss"]
        assert key.decapsulate(value["ct_n"]) == value["ss_n"]
        count += 2
        if count % 10 == 0:
            assert fits(value["pk"], value["d"] + value["z"])
    checked("ML-KEM-768 decapsulation, known answers", count, 2000)


def test_ml_kem_acvp_keys(acvp: Groups) -> None:
    count = 0
    for _, test, expected in acvp("ML-KEM-keyGen-FIPS203", "ML-KEM-768"):
        assert fits(bytes.fromhex(expected["ek"]), bytes.fromhex(test["d"] + test["z"]))
        count += 1
    for group, test, expected in acvp("ML-KEM-encapDecap-FIPS203", "ML-KEM-768"):
        if group["function"] != "encapsulationKeyCheck":
            continue
        assert accepted(test["ek"]) is expected["testPassed"]
        count += 1
    checked("ML-KEM-768, ACVP key generation and key check", count, 35)


def accepted(public: str) -> bool:
    try:
        MLKEM.encapsulation_key(bytes.fromhex(public))
    except CryptoError as error:
        return error.code.name != "crypto.key_invalid"
    return True


def test_ml_kem_wycheproof_decapsulation(edge: Callable[[str], str]) -> None:
    count = 0
    for test in wycheproof(edge, "mlkem_768_test"):
        seed, ciphertext = bytes.fromhex(test["seed"]), bytes.fromhex(test["c"])
        if test["result"] == "valid":
            assert MLKEM.decapsulate(seed, ciphertext) == bytes.fromhex(test["K"])
        else:
            with pytest.raises(CryptoError):
                MLKEM.decapsulate(seed, ciphertext)
        count += 1
    checked("ML-KEM-768, Wycheproof decapsulation", count, 201)


def test_ml_kem_keys_out_of_range_are_refused(edge: Callable[[str], str]) -> None:
    count = 0
    for test in wycheproof(edge, "mlkem_768_encaps_test"):
        assert accepted(test["ek"]) is (test["result"] == "valid"), test["tcId"]
        count += 1
    for line in edge("cctv/ML-KEM/modulus/ML-KEM-768.txt").split():
        assert not accepted(line)
        count += 1
    checked("ML-KEM-768 public keys, Wycheproof and CCTV", count, 265 + 780)


def wycheproof(edge: Callable[[str], str], name: str) -> Iterator[dict[str, Any]]:
    for group in json.loads(edge(f"wycheproof/testvectors_v1/{name}.json"))["testGroups"]:
        yield from group["tests"]


def test_x_wing_of_the_draft(own_vectors: Callable[[str], Any]) -> None:
    vectors = own_vectors("x-wing.json")
    for vector in vectors:
        value = {name: bytes.fromhex(text) for name, text in vector.items()}
        for name in ("X-Wing", "MLKEM768-X25519"):
            algorithm = kem(name)
            assert algorithm.decapsulate(value["sk"], value["ct"]) == value["ss"]
            ciphertext, secret = algorithm.encapsulate(value["pk"])
            assert algorithm.decapsulate(value["sk"], ciphertext) == secret
    checked("X-Wing, the draft's", len(vectors), 3)


def test_dhkem_x25519_of_rfc_9180(pyca_json: Callable[[str], Any]) -> None:
    count = 0
    for vector in pyca_json("HPKE/test-vectors.json"):
        if vector["kem_id"] != 0x20 or vector["mode"] > 1:  # the other modes authenticate the sender's key, too
            continue
        private, encapsulated = bytes.fromhex(vector["skRm"]), bytes.fromhex(vector["enc"])
        assert kem("X25519").decapsulate(private, encapsulated).hex() == vector["shared_secret"]
        count += 1
    checked("DHKEM(X25519), RFC 9180", count, 16)


def test_hpke_pq(pyca_json: Callable[[str], Any]) -> None:
    secrets = encryptions = 0
    for vector in pyca_json("HPKE/hpke-pq-test-vectors.json"):
        if vector["kem_id"] not in {0x41, 0x647A}:
            continue
        algorithm = HYBRID if vector["kem_id"] == 0x647A else MLKEM
        private, encapsulated = bytes.fromhex(vector["skRm"]), bytes.fromhex(vector["enc"])
        shared = algorithm.decapsulate(private, encapsulated)
        assert shared.hex() == vector["shared_secret"]
        secrets += 1
        if (vector["kem_id"], vector["kdf_id"], vector["aead_id"]) != (0x647A, 1, 3):
            continue
        key, nonce = key_schedule(shared, 3, bytes.fromhex(vector["info"]))
        assert (key.hex(), nonce.hex()) == (vector["key"], vector["base_nonce"])
        for encryption in vector["encryptions"]:
            associated, plaintext = bytes.fromhex(encryption["aad"]), bytes.fromhex(encryption["pt"])
            sealed = (
                aead("ChaCha20-Poly1305").cipher(key).seal(bytes.fromhex(encryption["nonce"]), plaintext, associated)
            )
            assert sealed.hex() == encryption["ct"]
            encryptions += 1
    checked("HPKE-PQ shared secrets (ML-KEM-768, MLKEM768-X25519)", secrets, 3)
    checked("HPKE-PQ encryptions (MLKEM768-X25519, HKDF-SHA256, ChaCha20-Poly1305)", encryptions, 10)


@pytest.mark.parametrize(
    ("suite", "cipher", "aead_id"),
    [
        ("HPKE-MLKEM768-X25519-AES-256-GCM", "AES-256-GCM", 2),
        ("HPKE-MLKEM768-X25519-ChaCha20-Poly1305", "ChaCha20-Poly1305", 3),
    ],
)
def test_hpke_seals_what_the_published_key_schedule_opens(suite: str, cipher: str, aead_id: int) -> None:
    public, private = HYBRID.generate()
    sealed = hpke(suite).seal(public, b"a message", b"its info")
    key, nonce = key_schedule(HYBRID.decapsulate(private, sealed[:1120]), aead_id, b"its info")
    assert aead(cipher).cipher(key).open(nonce, sealed[1120:], b"") == b"a message"


def key_schedule(shared: bytes, aead_id: int, info: bytes) -> tuple[bytes, bytes]:
    """RFC 9180 section 5.1 for MLKEM768-X25519, HKDF-SHA256, base mode; the vectors above prove it right."""
    suite = b"HPKE-v1HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x647A, 1, aead_id))
    context = b"\0" + hkdf_extract(b"", suite + b"psk_id_hash") + hkdf_extract(b"", suite + b"info_hash" + info)
    secret = hkdf_extract(shared, suite + b"secret")
    key = hkdf_expand(secret, (32).to_bytes(2, "big") + suite + b"key" + context, 32)
    return key, hkdf_expand(secret, (12).to_bytes(2, "big") + suite + b"base_nonce" + context, 12)


@pytest.mark.parametrize("level", bike.LEVELS, ids=lambda level: level.name)
def test_bike_of_liboqs(level: bike.Parameters, own_vectors: Callable[[str], Any]) -> None:
    count = 0
    for vector in own_vectors(f"{level.name.lower()}-liboqs.json")["vectors"]:
        value = {name: bytes.fromhex(text) for name, text in vector.items()}
        key = bike.PrivateKey.decode(level, value["sk"])
        assert key.encode() == value["sk"]
        assert bike.decapsulate(key, value["ct"]) == value["ss"]
        assert bike.decapsulate(key, value["bad_ct"]) == value["bad_ss"]
        inverse = invert(polynomial(key.first), level.r)
        assert multiply(key.second, inverse, level.r).to_bytes(level.block, "little") == value["pk"]
        count += 3
    checked(f"{level.name}: accepted and implicitly rejected ciphertexts, public keys", count, 24)
