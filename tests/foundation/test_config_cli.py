"""`ringfence config`: every component's example is a file that checks, and errors name their line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence.cli import main
from ringfence.config import effective, parse
from ringfence.config.cli import component, components
from ringfence.trust import TrustList, generate, save

COMPONENTS = sorted(components())


def test_the_components_are_the_daemons() -> None:
    assert COMPONENTS == ["agent", "gateway"]


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a component's configuration and everything that it names into a folder."""

    def install(name: str) -> Path:
        for key in ("agent", "gateway", "verifier"):
            generate(tmp_path, key)
        save(tmp_path / "trust.toml", TrustList())
        file = tmp_path / f"{name}.toml"
        file.write_text(component(name).example.replace("/etc/ringfence/", "").replace("/run/ringfence", "run"))
        return file

    return install


PAGES = {"identity", "sign_in", "hosts", "upstreams", "endorsements", "networks", "risk", "threats", "device", "policy"}
"""Tables of the gateway that have pages of their own: the example may leave out what is seldom set."""


def fields(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every key that a component may have; those of a free-form table are its own."""
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from fields(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@pytest.mark.parametrize("name", COMPONENTS)
def test_an_example_names_every_key_and_explains_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example", name]) == 0
    example = capsys.readouterr().out
    table, shown = "", set()
    for line in example.splitlines():
        statement, _, comment = line.partition("#")
        if statement.startswith("["):
            table = statement.strip(" []") + "."
        elif "=" in statement:
            key = table + statement.partition("=")[0].strip()
            shown.add("host.pcrs" if key.startswith("host.pcrs.") else key)
            if key not in ("component", "host.pcrs.0"):
                assert comment.strip(), f"{key} is not explained"
    assert {key for key in shown if key.partition(".")[0] not in PAGES} == {
        "component",
        *(key for key in fields(component(name)) if key.partition(".")[0] not in PAGES),
    }


@pytest.mark.parametrize("name", COMPONENTS)
def test_an_example_holds_the_defaults(name: str, tmp_path: Path) -> None:
    kind = component(name)
    value: Any = parse(kind.example.encode(), kind, source="it.toml", folder=tmp_path)
    assert value.limits == type(value.limits)()
    assert value.audit == type(value.audit)()


@pytest.mark.parametrize("name", COMPONENTS)
def test_what_is_installed_checks_and_shows_the_values_in_force(
    name: str, installed: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    kind, file = component(name), installed(name)
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"ok\n  component = '{name}'\n")
    assert main(["config", "check", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    value = parse(file.read_bytes(), kind, source="it.toml", folder=file.parent)
    assert document == {"ok": True, "file": str(file), "values": json.loads(json.dumps(effective(value)))}


@pytest.mark.parametrize(
    ("name", "old", "new", "code"),
    [
        ("agent", '"agent.key"', '"nowhere.key"', "trust.missing_file"),
        ("agent", '"agent.key"', '"agent.pub"', "trust.key_malformed"),
        ("agent", '"trust.toml"', '"nowhere.toml"', "trust.missing_file"),
        ("agent", 'second_key = "none"', 'second_key = "nowhere.key"', "trust.missing_file"),
        ("agent", 'second_key = "none"', 'second_key = "agent.key"', "keystore.malformed"),
        ("gateway", 'second_key = "none"', 'second_key = "gateway.pub"', "keystore.malformed"),
        ("gateway", '"gateway.key"', '"nowhere.key"', "trust.missing_file"),
        ("gateway", '"verifier.key"', '"nowhere.key"', "trust.missing_file"),
        ("gateway", '"trust.toml"', '"nowhere.toml"', "trust.missing_file"),
        ("gateway", '"default"', '"lenient"', "policy.unknown_bundle"),
        ("gateway", '"default"', '"./nowhere"', "policy.unreadable"),
    ],
)
def test_what_does_not_load_is_its_own_error(
    name: str, old: str, new: str, code: str, installed: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = installed(name)
    before = file.read_text()
    assert old in before
    file.write_text(before.replace(old, new))
    assert main(["config", "check", str(file)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith(f"ringfence: {code}")


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
