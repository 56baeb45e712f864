"""A bundle is read in a child that may die, stall or lie without anything else failing."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from ringfence.policies.errors import BAD_SYNTAX, TOO_COMPLEX, TOO_LARGE, UNREADABLE, PolicyError
from ringfence.policies.folder import load_bundle, read_files, shipped_files
from ringfence.policies.loading.checked import LoadingSettings, load_checked
from ringfence.policies.loading.child import answer
from ringfence.policies.loading.errors import CHILD_DIED, CHILD_LATE, CHILD_LIED
from ringfence.policies.loading.messages import Checked, Order, Refused

DEFAULT = files("ringfence.policies") / "bundles" / "default"
MANIFEST = 'name = "t"\nversion = 1\ndescription = "d"\nextends = "default"\n'
POLICY = '@id("extra") @description("d") forbid (principal, action, resource) when { context.risk > 50 };'
CASE = (
    '[[case]]\nname = "c"\nprincipal = "alice"\ngroups = ["g"]\naction = "SubmitJob"\nresource = "h"\n'
    'context = { risk = 60, factors = ["b", "a"] }\nexpect = "deny"\npolicies = ["extra"]\n'
)
DEEP = "permit (principal, action, resource) when { " + "(" * 2000 + "true" + ")" * 2000 + " };"
CRASH = f"import cedarpy; cedarpy.PolicySet.from_str({DEEP!r})"


def bundle_folder(root: Path, policy: str = POLICY) -> Path:
    (root / "policies").mkdir()
    (root / "tests").mkdir()
    (root / "manifest.toml").write_text(MANIFEST)
    (root / "policies" / "extra.cedar").write_text(policy)
    (root / "tests" / "extra.toml").write_text(CASE)
    return root


def refused(root: Path, *child: str, **settings: int) -> PolicyError:
    command = {"child": (sys.executable, *child)} if child else {}
    with pytest.raises(PolicyError) as caught:
        load_checked(root, LoadingSettings(**settings), **command)
    assert caught.value.hint
    return caught.value


def test_what_the_child_gives_is_what_the_checks_give(tmp_path: Path) -> None:
    assert load_checked(DEFAULT) == load_bundle(DEFAULT)
    folder = bundle_folder(tmp_path)
    assert load_checked(folder) == load_bundle(folder)


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (POLICY + "\n" + POLICY.replace("extra", "more")[:-1], BAD_SYNTAX),
        (POLICY.replace("context.risk > 50", "(" * 2000 + "true" + ")" * 2000), TOO_COMPLEX),
    ],
)
def test_refusal_comes_with_file_and_line(tmp_path: Path, policy: str, code: object) -> None:
    error = refused(bundle_folder(tmp_path, policy))
    assert error.code is code
    assert error.field.startswith("policies/extra.cedar:")


def test_death_of_the_child_is_an_ordinary_error(tmp_path: Path) -> None:
    error = refused(bundle_folder(tmp_path), "-c", CRASH)
    assert error.code is CHILD_DIED
    assert "SIG" in error.message


def test_child_without_memory_or_that_fails_is_an_ordinary_error(tmp_path: Path) -> None:
    assert refused(bundle_folder(tmp_path), "-c", "raise MemoryError").code is CHILD_DIED


def test_child_that_stalls_is_killed(tmp_path: Path) -> None:
    error = refused(bundle_folder(tmp_path), "-c", "import time; time.sleep(60)", deadline_s=1)
    assert error.code is CHILD_LATE


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x80", msgspec.msgpack.encode(Refused("no.such", "m", "f", "h"))])
def test_answer_that_makes_no_sense_is_refused(tmp_path: Path, data: bytes) -> None:
    program = f"import sys; sys.stdout.buffer.write({data!r})"
    assert refused(bundle_folder(tmp_path), "-c", program).code is CHILD_LIED


@pytest.mark.parametrize("lie", ["digest", "text", "nothing", "inherited", "context"])
def test_bundle_that_is_not_made_of_the_files_is_refused(tmp_path: Path, lie: str) -> None:
    folder = bundle_folder(tmp_path)
    honest = answer(Order(read_files(folder), shipped_files()))
    assert isinstance(honest, Checked)
    first, *rest = honest.policies
    changed = {
        "digest": msgspec.structs.replace(honest, digest="00" * 32),
        "text": msgspec.structs.replace(
            honest, policies=(*rest, replace(first, text=POLICY.replace("50", "99"), file="policies/extra.cedar"))
        ),
        "nothing": msgspec.structs.replace(honest, policies=()),
        "inherited": msgspec.structs.replace(honest, policies=(*rest, replace(first, text="permit"))),
        "context": msgspec.structs.replace(honest, cases=(msgspec.structs.replace(honest.cases[0], context={}),)),
    }[lie]
    program = f"import sys; sys.stdout.buffer.write({msgspec.msgpack.encode(changed)!r})"
    assert refused(folder, "-c", program).code is CHILD_LIED


def test_large_bundle_never_reaches_the_child(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path)
    for number in range(33):
        (folder / "policies" / f"{number}.cedar").write_bytes(b"//" + b" " * (1024 * 1024 - 2))
    assert refused(folder, "-c", "raise SystemExit(9)").code is TOO_LARGE


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere").code is UNREADABLE
