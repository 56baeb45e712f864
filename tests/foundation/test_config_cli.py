"""`ringfence config`: every component's example is a file that checks, and errors name their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.cli import main
from ringfence.config import effective, parse
from ringfence.config.cli import component, components

COMPONENTS = sorted(components())


def test_the_components_are_the_daemons() -> None:
    assert COMPONENTS == ["agent", "gateway"]


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_example_checks(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example", name]) == 0
    example = capsys.readouterr().out
    file = tmp_path / f"{name}.toml"
    file.write_text(example)
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"ok\n  component = '{name}'\n")


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_values_in_force_are_the_loaded_ones(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = component(name)
    file = tmp_path / "it.toml"
    file.write_text(kind.example)
    assert main(["config", "check", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    value = parse(kind.example.encode(), kind, source="it.toml", folder=tmp_path)
    assert document == {"ok": True, "file": str(file), "values": json.loads(json.dumps(effective(value)))}


def test_an_example_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example", "agent", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"component": "agent", "example": component("agent").example}


@pytest.mark.parametrize("name", COMPONENTS)
def test_an_unknown_key_ends_with_2_and_its_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "it.toml"
    file.write_text("trust_everyone = true\n" + component(name).example)
    assert main(["config", "check", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"ringfence: config.unknown_key (trust_everyone): {file}:1: ")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('component = "kitchen"\n', "config.wrong_component (component)"),
        ("port = 1\n", "config.wrong_component (component)"),
        ("port = \n", "config.bad_toml"),
    ],
)
def test_a_file_of_no_component_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: str
) -> None:
    file = tmp_path / "it.toml"
    file.write_text(text)
    assert main(["config", "check", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"ringfence: {code}: {file}:")


def test_a_file_that_is_not_there_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(tmp_path / "it.toml")]) == 2
    assert capsys.readouterr().err.startswith("ringfence: config.unreadable: ")


def test_an_unknown_component_has_no_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example", "kitchen"]) == 2
    assert "usage.bad_argument" in capsys.readouterr().err
