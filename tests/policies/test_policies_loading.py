"""A bundle that is wrong is refused with one clear error that names file, line and remedy."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import Code
from ringfence.policies.assembly import MAX_FILE_BYTES, MAX_FILES, assemble
from ringfence.policies.errors import (
    BAD_ANNOTATION,
    BAD_CASE,
    BAD_LAYOUT,
    BAD_MANIFEST,
    BAD_SCHEMA,
    BAD_SYNTAX,
    BAD_TYPES,
    DUPLICATE_ID,
    TOO_COMPLEX,
    TOO_LARGE,
    UNREADABLE,
    PolicyError,
)
from ringfence.policies.folder import load_bundle, open_bundled

SCHEMA = open_bundled("default").schema
MANIFEST = 'name = "t"\nversion = 1\ndescription = "a test"\n'
EXTENDS = MANIFEST + 'extends = "default"\n'
GOOD = '@id("good") @description("d") permit (principal, action, resource);\n'
HEAD = '@id("x") @description("d") '
WHEN = HEAD + "permit (principal, action, resource) when { "
CASE = """[[case]]
name = "c"
principal = "alice"
groups = []
action = "OpenSession"
resource = "h"
expect = "allow"
policies = ["good"]
"""
GOOD_FILES = {
    "manifest.toml": MANIFEST,
    "schema.cedarschema": SCHEMA,
    "policies/good.cedar": GOOD,
    "tests/good.toml": CASE,
}


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def refusal(root: Path, files: dict[str, str]) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        load_bundle(write(root, files))
    assert caught.value.field
    assert caught.value.hint
    return caught.value


def test_good_bundle_loads(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path, GOOD_FILES))
    assert (bundle.name, bundle.version, bundle.description) == ("t", 1, "a test")
    assert [(policy.id, policy.effect, policy.file, policy.line) for policy in bundle.policies] == [
        ("good", "permit", "policies/good.cedar", 1)
    ]
    assert [case.name for case in bundle.cases] == ["c"]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("\n\n@description(\"d\") permit (principal, action, resource);", BAD_ANNOTATION, 3),
        ('\n@id("x") permit (principal, action, resource);', BAD_ANNOTATION, 2),
        ('@id("x") @description(" ") permit (principal, action, resource);', BAD_ANNOTATION, 1),
        ('@id("X y") @description("d") permit (principal, action, resource);', BAD_ANNOTATION, 1),
        ('@id("x\\u{41}") @description("d") permit (principal, action, resource);', BAD_ANNOTATION, 1),
        ('@id("x")\n@id("x") @description("d") permit (principal, action, resource);', BAD_ANNOTATION, 2),
        ('@id("x") @description("a\\tb") permit (principal, action, resource);', BAD_ANNOTATION, 1),
        ('@id @description("d") permit (principal, action, resource);', BAD_ANNOTATION, 1),
        (HEAD + "permit (principal, action, resource)", BAD_SYNTAX, 1),
        (HEAD + "permit (principal, action, resource;", BAD_SYNTAX, 1),
        (HEAD + "permit (principal, action, resource));", BAD_SYNTAX, 1),
        (HEAD + "permit (principal, action);", BAD_SYNTAX, 1),
        (HEAD + "allow (principal, action, resource);", BAD_SYNTAX, 1),
        (WHEN + "# };", BAD_SYNTAX, 1),
        (HEAD + 'permit (principal, action, resource) when { "open };', BAD_SYNTAX, 1),
        (HEAD + "permit (principal == ?principal, action, resource);", BAD_SYNTAX, 1),
        (";", BAD_SYNTAX, 1),
        ("\n" + HEAD + "forbid (principal, action, resource) when { context.nothing };", BAD_TYPES, 2),
        (HEAD + "forbid (principal, action, resource) when { context.risk };", BAD_TYPES, 1),
        (HEAD + "forbid (principal, action, resource) when { context.body_verified };", BAD_TYPES, 1),
        (HEAD + 'forbid (principal in Ringfence::Grupe::"x", action, resource);', BAD_TYPES, 1),
        (HEAD + 'forbid (principal, action == Ringfence::Action::"Nothing", resource);', BAD_TYPES, 1),
        (WHEN + "(" * 2000 + "true" + ")" * 2000 + " };", TOO_COMPLEX, 1),
        (WHEN + "[" * 65 + "]" * 65 + " };", TOO_COMPLEX, 1),
        (WHEN + " && ".join(["true"] * 2000) + " };", TOO_COMPLEX, 1),
        (WHEN + "if true then true else " * 8000 + "true };", TOO_COMPLEX, 1),
        (WHEN + "context" + ".risk" * 600 + " };", TOO_COMPLEX, 1),
        (WHEN + "principal is Ringfence::Client && " * 11 + "true };", TOO_COMPLEX, 1),
        (HEAD + "permit (principal, action, resource) " + "when { true } " * 501 + ";", TOO_COMPLEX, 1),
    ],
)  # fmt: skip
def test_bad_policy_is_refused_at_its_line(tmp_path: Path, text: str, code: Code, line: int) -> None:
    error = refusal(tmp_path, GOOD_FILES | {"policies/bad.cedar": text})
    assert error.code is code
    assert error.field == f"policies/bad.cedar:{line}"


def test_duplicate_id_names_both_places(tmp_path: Path) -> None:
    error = refusal(tmp_path, GOOD_FILES | {"policies/other.cedar": "\n" + GOOD})
    assert error.code is DUPLICATE_ID
    assert error.field == "policies/other.cedar:2"
    assert "policies/good.cedar:1" in error.message


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        (SCHEMA.replace("risk: Long", "risk?: Long"), BAD_SCHEMA),
        (SCHEMA.replace("      risk: Long,", "      ", 1), BAD_SCHEMA),
        (SCHEMA.replace("risk: Long", "risk: String"), BAD_SCHEMA),
        (SCHEMA.replace("risk: Long", "risk: Long, more: Long"), BAD_SCHEMA),
        (SCHEMA.replace("SubmitJob", "SendJob"), BAD_SCHEMA),
        (SCHEMA.replace("Client in [Group]", "Client"), BAD_SCHEMA),
        (SCHEMA.replace("namespace Ringfence", "namespace Other"), BAD_SCHEMA),
        ("entity A", BAD_SCHEMA),
        ("", BAD_SCHEMA),
        ("entity A = " + "{a: " * 3000 + "Long" + "}" * 3000 + ";", TOO_COMPLEX),
        ("namespace Ringfence {", BAD_SYNTAX),
    ],
)
def test_schema_that_ringfence_cannot_fill_is_refused(tmp_path: Path, schema: str, code: Code) -> None:
    error = refusal(tmp_path, GOOD_FILES | {"schema.cedarschema": schema})
    assert error.code is code
    assert error.field.startswith("schema.cedarschema")


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        'name = "t"',
        MANIFEST + "verson = 2\n",
        MANIFEST.replace("1", '"1"'),
        MANIFEST.replace("1", "0"),
        MANIFEST.replace('"t"', '""'),
        MANIFEST + 'remove = ["good"]\n',
        "= =",
        "a = " + "[" * 5000,
    ],
)
def test_bad_manifest_is_refused(tmp_path: Path, manifest: str) -> None:
    error = refusal(tmp_path, GOOD_FILES | {"manifest.toml": manifest})
    assert error.code is BAD_MANIFEST
    assert error.field == "manifest.toml"


@pytest.mark.parametrize(
    "case",
    [
        CASE.replace("allow", "perhaps"),
        CASE.replace("OpenSession", "CloseSession"),
        CASE + 'hots = "x"\n',
        CASE.replace('principal = "alice"', ""),
        CASE.replace('"alice"', '""'),
        CASE + "context = { body_verified = true }\n",
        CASE + 'context = { risk = "high" }\n',
        CASE + "context = { risk = 101 }\n",
        CASE + 'context = { device_status = "fine" }\n',
        CASE.replace('["good"]', '["nothing"]'),
        CASE + CASE,
        "case = 1",
        "= =",
    ],
)
def test_bad_case_is_refused(tmp_path: Path, case: str) -> None:
    error = refusal(tmp_path, GOOD_FILES | {"tests/good.toml": case})
    assert error.code is BAD_CASE
    assert error.field == "tests/good.toml"


@pytest.mark.parametrize(
    "extra", ["README.md", "policies/notes.txt", "tests/x.cedar", "more/x.cedar", "policies/a/b.cedar"]
)
def test_unexpected_file_is_refused(tmp_path: Path, extra: str) -> None:
    assert refusal(tmp_path, GOOD_FILES | {extra: ""}).code is BAD_LAYOUT


@pytest.mark.parametrize("missing", ["manifest.toml", "schema.cedarschema", "policies/good.cedar"])
def test_missing_file_is_refused(tmp_path: Path, missing: str) -> None:
    files = {path: text for path, text in GOOD_FILES.items() if path not in (missing, "tests/good.toml")}
    assert refusal(tmp_path, files).code is BAD_LAYOUT


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere", {}).code is UNREADABLE


def test_large_file_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, GOOD_FILES | {"policies/big.cedar": "//" + " " * MAX_FILE_BYTES})
    assert (error.code, error.field) == (TOO_LARGE, "policies/big.cedar")


def test_many_files_are_refused(tmp_path: Path) -> None:
    files = GOOD_FILES | {f"policies/{number}.cedar": "" for number in range(MAX_FILES)}
    assert refusal(tmp_path, files).code is TOO_LARGE


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    write(tmp_path, GOOD_FILES)
    (tmp_path / "policies/good.cedar").write_bytes(b"\xff")
    assert refusal(tmp_path, {}).code is BAD_SYNTAX


def test_extension_keeps_what_it_does_not_remove(tmp_path: Path) -> None:
    base = open_bundled("default")
    files = {"manifest.toml": EXTENDS + 'remove = ["forbid-high-risk"]\n', "policies/good.cedar": GOOD}
    bundle = load_bundle(write(tmp_path, files))
    expected = {policy.id for policy in base.policies} - {"forbid-high-risk"} | {"good"}
    assert {policy.id for policy in bundle.policies} == expected
    assert bundle.schema == base.schema


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"manifest.toml": EXTENDS + 'remove = ["nothing"]\n'}, "policy.bad_manifest"),
        ({"manifest.toml": MANIFEST + 'extends = "nothing"\n'}, "policy.unknown_bundle"),
        ({"manifest.toml": MANIFEST + 'extends = ["quotas", "nothing"]\n'}, "policy.unknown_bundle"),
        ({"manifest.toml": MANIFEST + 'extends = ["quotas", "quotas"]\n'}, "policy.bad_manifest"),
        ({"manifest.toml": MANIFEST + f"extends = {[str(number) for number in range(33)]}\n"}, "policy.bad_manifest"),
        ({"manifest.toml": MANIFEST + 'extends = ["quotas", "default"]\nremove = ["x"]\n'}, "policy.bad_manifest"),
        ({"manifest.toml": MANIFEST + "extends = [1]\n"}, "policy.bad_manifest"),
        ({"manifest.toml": MANIFEST + 'extends = "../default"\n'}, "policy.unknown_bundle"),
        ({"manifest.toml": EXTENDS, "schema.cedarschema": SCHEMA}, "policy.bad_layout"),
        (
            {"manifest.toml": EXTENDS, "policies/x.cedar": GOOD.replace("good", "forbid-high-risk")},
            "policy.duplicate_id",
        ),
    ],
)
def test_bad_extension_is_refused(tmp_path: Path, files: dict[str, str], code: str) -> None:
    assert refusal(tmp_path, files).code.name == code


def test_digest_covers_every_file_and_its_name() -> None:
    files = {path: text.encode() for path, text in GOOD_FILES.items()}
    digests = {assemble(files, open_bundled).digest}
    for path in files:
        digests.add(assemble(files | {path: files[path] + b"\n"}, open_bundled).digest)
    renamed = {path.replace("policies/good", "policies/other"): data for path, data in files.items()}
    digests.add(assemble(renamed, open_bundled).digest)
    assert len(digests) == len(files) + 2
    assert assemble(dict(reversed(files.items())), open_bundled).digest in digests


def test_digest_covers_the_extended_bundle() -> None:
    base = open_bundled("default")
    files = {"manifest.toml": EXTENDS.encode()}
    changed = replace(base, digest="00" * 32)
    assert assemble(files, lambda _: base).digest != assemble(files, lambda _: changed).digest


@given(path=st.sampled_from(sorted(GOOD_FILES)), data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_load_or_are_refused_in_our_own_words(path: str, data: bytes) -> None:
    files = {name: text.encode() for name, text in GOOD_FILES.items()} | {path: data}
    with contextlib.suppress(PolicyError):
        assert assemble(files, open_bundled).policies
