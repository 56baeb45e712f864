"""The tree keeps the layout that makes the namespace package, its types and its builds work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
ROOTS = ("foundation", "attestation", "policies", "agent", "plugin")
CHECKED = (*ROOTS, "tests", "tools", "docs", "packaging", ".ci")
LONGEST = 400
# A file past the limit stands here with its reason.
LONGER: dict[str, str] = {"docs/errors.md": "one page for every code there is"}
# Put together here, so that this file does not hold the words it looks for.
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "mark.x" + "fail", "mark.sk" + "ip")
TEXT = {".py", ".pyi", ".md", ".toml", ".c", ".h", ".cpp", ".hip", ".proto", ".cedar", ".cedarschema", ".sh", ".ini"}


def parts(tree: Path) -> list[Path]:
    """Every part: a folder directly in one of the `ringfence` folders."""
    folders = (folder for root in ROOTS for folder in (tree / root / "ringfence").iterdir() if folder.is_dir())
    return sorted(folder for folder in folders if folder.name != "__pycache__")


def own_files(tree: Path) -> Iterator[Path]:
    """The files written by hand, relative to the tree."""
    for top in CHECKED:
        for path in (tree / top).rglob("*"):
            if path.is_file() and path.suffix in TEXT and not {"_pb", "__pycache__"} & set(path.parts):
                yield path.relative_to(tree)


def stray_inits(tree: Path) -> list[str]:
    return [root for root in ROOTS if (tree / root / "ringfence" / "__init__.py").exists()]


def incomplete_parts(tree: Path) -> list[str]:
    needed = ("__init__.py", "py.typed")
    return [
        str((part / name).relative_to(tree)) for part in parts(tree) for name in needed if not (part / name).is_file()
    ]


def too_long(tree: Path) -> list[str]:
    lines = {str(path): (tree / path).read_text(encoding="utf-8").count("\n") for path in own_files(tree)}
    return [f"{path}: {count} lines" for path, count in lines.items() if count > LONGEST and path not in LONGER]


def unfinished(tree: Path) -> list[str]:
    texts = {path: (tree / path).read_text(encoding="utf-8") for path in own_files(tree)}
    return [f"{path}: {word}" for path, text in texts.items() for word in UNFINISHED if word in text]


def test_no_root_has_an_init_file_that_would_hide_the_other_roots() -> None:
    assert stray_inits(TREE) == []


def test_every_part_is_a_package_that_ships_its_types() -> None:
    assert len(parts(TREE)) >= len(ROOTS)
    assert incomplete_parts(TREE) == []


def test_no_test_folder_is_a_package() -> None:
    assert list((TREE / "tests").rglob("__init__.py")) == []


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (TREE / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_file_grows_past_the_limit_without_a_reason() -> None:
    assert too_long(TREE) == []


def test_nothing_is_left_unfinished() -> None:
    assert unfinished(TREE) == []


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    for root in ROOTS:
        part = tmp_path / root / "ringfence" / f"{root}_part"
        part.mkdir(parents=True)
        (part / "__init__.py").write_text("", encoding="utf-8")
        (part / "py.typed").write_text("", encoding="utf-8")
    return tmp_path


def test_the_rules_pass_a_tree_that_keeps_them(small_tree: Path) -> None:
    assert [stray_inits(small_tree), incomplete_parts(small_tree), too_long(small_tree), unfinished(small_tree)] == [
        []
    ] * 4


def test_each_rule_catches_its_violation(small_tree: Path) -> None:
    (small_tree / "agent/ringfence/__init__.py").write_text("", encoding="utf-8")
    (small_tree / "plugin/ringfence/plugin_part/py.typed").unlink()
    (small_tree / "policies/ringfence/policies_part/long.py").write_text("x = 1\n" * (LONGEST + 1), encoding="utf-8")
    (small_tree / "agent/ringfence/agent_part/later.py").write_text(f"# {UNFINISHED[0]}\n", encoding="utf-8")
    assert stray_inits(small_tree) == ["agent"]
    assert incomplete_parts(small_tree) == ["plugin/ringfence/plugin_part/py.typed"]
    assert too_long(small_tree) == [f"policies/ringfence/policies_part/long.py: {LONGEST + 1} lines"]
    assert unfinished(small_tree) == [f"agent/ringfence/agent_part/later.py: {UNFINISHED[0]}"]
