"""Bundles made by a small edit of another, for the tests of what is said about bundles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.folder import load_bundle, open_bundled

MANIFEST = 'name = "t"\nversion = 1\ndescription = "a test"\n'


@pytest.fixture(scope="session")
def default() -> Bundle:
    return open_bundled("default")


@pytest.fixture(scope="session")
def edited() -> Callable[[Bundle, str, str], Bundle]:
    """A bundle with one piece of policy text in the place of another, wherever it stands."""

    def edit(bundle: Bundle, old: str, new: str) -> Bundle:
        assert any(old in policy.text for policy in bundle.policies)
        return replace(
            bundle,
            policies=tuple(replace(policy, text=policy.text.replace(old, new)) for policy in bundle.policies),
        )

    return edit


@pytest.fixture(scope="session")
def added() -> Callable[..., Bundle]:
    """A bundle with one more policy, whose text begins with its effect."""

    def add(bundle: Bundle, text: str, name: str = "more") -> Bundle:
        effect = text.split("(")[0].strip()
        whole = f'@id("{name}") @description("one more") {text}'
        return replace(
            bundle, policies=(*bundle.policies, Policy(name, "one more", effect, "policies/m.cedar", 1, whole))
        )

    return add


@pytest.fixture
def folder(tmp_path: Path, default: Bundle) -> Callable[..., Path]:
    """A folder with the default's schema and these policies, and further files by path."""

    def write(policies: str, name: str = "bundle", **files: str) -> Path:
        root = tmp_path / name
        for part in ("policies", "tests"):
            (root / part).mkdir(parents=True, exist_ok=True)
        (root / "manifest.toml").write_text(MANIFEST)
        (root / "schema.cedarschema").write_text(files.pop("schema", default.schema))
        (root / "policies/p.cedar").write_text(policies)
        if "cases" in files:
            (root / "tests/c.toml").write_text(files["cases"])
        return root

    return write


@pytest.fixture
def loaded(folder: Callable[..., Path]) -> Callable[..., Bundle]:
    """The bundle of such a folder."""

    def load(policies: str, **files: str) -> Bundle:
        return load_bundle(folder(policies, **files))

    return load
