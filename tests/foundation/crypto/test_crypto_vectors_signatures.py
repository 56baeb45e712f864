"""Signatures against vectors that nobody here wrote; each test prints how many it checked (`pytest -rP`)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest

from ringfence.crypto import COMPOSITE, CryptoError, Signature, signature

Cases = Callable[[str], Iterator[dict[str, str]]]
Groups = Callable[[str, str], Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]]
MLDSA = signature("ML-DSA-65")


def checked(what: str, count: int, expected: int) -> None:
    print(f"{count} vectors checked: {what}")
    assert count == expected


def holds(algorithm: Signature, public: bytes, message: bytes, signed: bytes, context: bytes = b"") -> bool:
    try:
        algorithm.verify(public, message, signed, context)
    except CryptoError:
        return False
    return True


def test_ed25519_known_answers() -> None:
    algorithm = signature("Ed25519")
    count = 0
    for line in files("cryptography_vectors").joinpath("asymmetric/Ed25519/sign.input").read_text().splitlines():
        private, public, message, signed = (bytes.fromhex(field) for field in line.split(":")[:4])
        assert algorithm.public(private[:32]) == public
        assert algorithm.sign(private[:32], message) == signed[:64]
        algorithm.verify(public, message, signed[:64])
        count += 1
    checked("Ed25519, signing and verifying", count, 1024)


def test_ml_dsa_known_answers(pyca_cases: Cases) -> None:
    count = 0
    for case in pyca_cases("asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp"):
        value = {name: bytes.fromhex(case[name]) for name in ("xi", "pk", "msg", "ctx", "sm")}
        assert MLDSA.public(value["xi"]) == value["pk"]
        MLDSA.verify(value["pk"], value["msg"], value["sm"][:3309], value["ctx"])
        count += 1
    checked("ML-DSA-65, known answers", count, 100)


def test_ml_dsa_acvp(acvp: Groups) -> None:
    count = 0
    for _, test, expected in acvp("ML-DSA-keyGen-FIPS204", "ML-DSA-65"):
        assert MLDSA.public(bytes.fromhex(test["seed"])) == bytes.fromhex(expected["pk"])
        count += 1
    for group, test, expected in acvp("ML-DSA-sigVer-FIPS204", "ML-DSA-65"):
        if group.get("preHash") != "pure":
            continue
        value = [bytes.fromhex(test[name]) for name in ("pk", "message", "signature", "context")]
        assert holds(MLDSA, *value) is expected["testPassed"]
        count += 1
    checked("ML-DSA-65, ACVP key generation and verification", count, 40)


def test_ml_dsa_wycheproof(edge: Callable[[str], str]) -> None:
    count = 0
    for group in json.loads(edge("wycheproof/testvectors_v1/mldsa_65_verify_test.json"))["testGroups"]:
        public = bytes.fromhex(group["publicKey"])
        for test in group["tests"]:
            message, signed, context = (bytes.fromhex(test.get(name, "")) for name in ("msg", "sig", "ctx"))
            assert holds(MLDSA, public, message, signed, context) is (test["result"] == "valid"), test["tcId"]
            count += 1
    checked("ML-DSA-65, Wycheproof verification", count, 210)


@pytest.mark.parametrize("name", ["SLH-DSA-SHA2-128f", "SLH-DSA-SHA2-128s"])
def test_slh_dsa_acvp(name: str, acvp: Groups) -> None:
    algorithm = signature(name)
    generated = verified = signed = 0
    for _, _, expected in acvp("SLH-DSA-keyGen-FIPS205", name):
        assert algorithm.public(bytes.fromhex(expected["sk"])) == bytes.fromhex(expected["pk"])
        generated += 1
    for group, test, expected in acvp("SLH-DSA-sigVer-FIPS205", name):
        if group.get("preHash") == "pure":
            value = [bytes.fromhex(test[field]) for field in ("pk", "message", "signature", "context")]
            assert holds(algorithm, *value) is expected["testPassed"]
            verified += 1
    for group, test, expected in acvp("SLH-DSA-sigGen-FIPS205", name):
        if group.get("preHash") == "pure":  # ours are hedged, so NIST's are verified rather than made again
            private, message, context = (bytes.fromhex(test[field]) for field in ("sk", "message", "context"))
            algorithm.verify(algorithm.public(private), message, bytes.fromhex(expected["signature"]), context)
            signed += 1
    checked(f"{name}, ACVP public keys", generated, 10)
    checked(f"{name}, ACVP verification", verified, 14)
    checked(f"{name}, ACVP signatures verified", signed, 14)


def test_the_composite_of_the_draft(own_vectors: Callable[[str], Any]) -> None:
    fields = own_vectors("composite-mldsa65-ed25519.json")
    vector = {name: base64.b64decode(text) for name, text in fields.items() if name != "tcId"}
    assert COMPOSITE.public(vector["sk"]) == vector["pk"]
    COMPOSITE.verify(vector["pk"], vector["m"], vector["s"])
    COMPOSITE.verify(vector["pk"], vector["m"], vector["sWithContext"], vector["ctx"])
    assert not holds(COMPOSITE, vector["pk"], vector["m"], vector["sWithContext"])
    checked("ML-DSA-65-Ed25519, the draft's", 2, 2)
