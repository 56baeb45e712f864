"""The tables and names in the documents are those of the code: commands, folders, stages, codes, imports, limits."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ringfence.agent.gpu.catalogue import KERNELS
from ringfence.agent.quantum.gates import Gate
from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, WASI
from ringfence.agent.sandbox.levels import Level, ResultType
from ringfence.agent.sandbox.port import BOUNDS, MAX_MODULE_BYTES
from ringfence.agent.sandbox.validation import CHECKS
from ringfence.agent.sandbox.wasm import BOUNDS as MODULE_BOUNDS
from ringfence.errors import Kind
from ringfence.frame import commands, summary
from ringfence.policies import Action, Query
from ringfence.policies.cases import BASE_JOB
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import open_bundled

TREE = Path(__file__).resolve().parents[2]
ROOTS = ("foundation", "attestation", "policies", "agent", "plugin")
PAGES = (
    *(TREE / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((TREE / "docs").rglob("*.md")),
)
# Never sources, or made by the tests themselves.
IGNORED = {"__pycache__"}


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after the line that begins the header row with `heading`."""
    lines = iter((TREE / page).read_text(encoding="utf-8").splitlines())
    next(line for line in lines if line.startswith(f"| {heading} |"))
    next(lines)
    table = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def quoted(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def declared() -> list[tuple[str, str]]:
    """Every `Code("part.what", Kind.X)` in the source, as (name, kind)."""
    found = []
    for root in ROOTS:
        for path in sorted((TREE / root).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(
                        func=ast.Name(id="Code"), args=[ast.Constant(value=str(name)), ast.Attribute(attr=kind)]
                    ):
                        found.append((name, kind))
    return found


def stages(*modules: str) -> list[str]:
    """The stages that a pipeline runs, in order; `entry` begins those of every request."""
    pipeline = TREE / "plugin" / "ringfence" / "plugin" / "pipeline"
    sources = [(pipeline / f"{name}.py").read_text(encoding="utf-8") for name in modules]
    found = [stage for source in sources for stage in re.findall(r"docket\.begin\(\"(\w+)\"\)", source)]
    return list(dict.fromkeys(found))


def same(page: str, listed: Iterable[object], present: Iterable[object]) -> None:
    """Fail with the names that a page lacks, or has though nothing has them, or has twice."""
    said, there = Counter(iter(listed)), Counter(iter(present))
    faults = [
        f"{page} {what}: {', '.join(sorted(map(_shown, names)))}"
        for what, names in (("lacks", there - said), ("says what is not so", said - there))
        if names
    ]
    if faults:
        raise AssertionError("; ".join(faults))


def _shown(entry: object) -> str:
    return " ".join(map(str, entry)) if isinstance(entry, tuple) else str(entry)


def test_the_readme_lists_the_commands_as_the_help_does() -> None:
    listed = {quoted(name)[0].removeprefix("ringfence "): what for name, what in rows("README.md", "command")}
    same("README.md", listed.items(), ((name, summary(module)) for name, module in commands().items()))
    assert all(listed.values())


def test_the_readme_lists_the_extras() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [quoted(extra)[0] for extra, _ in rows("README.md", "extra")]
    same("README.md", listed, project["optional-dependencies"])


def test_architecture_names_every_part_and_no_other() -> None:
    listed = [quoted(folder)[0] for folder, _ in rows("docs/architecture.md", "folder")]
    present = [
        f"{root}/ringfence/{folder.name}/"
        for root in ROOTS
        for folder in (TREE / root / "ringfence").iterdir()
        if folder.is_dir() and folder.name not in IGNORED
    ]
    same("docs/architecture.md", listed, present)


def test_architecture_names_the_stages_in_their_order() -> None:
    assert [stage for stage, _ in rows("docs/architecture.md", "opening a session")] == stages("opening")
    assert [stage for stage, _ in rows("docs/architecture.md", "a request")] == stages("entry", "requests")


def test_every_code_has_one_meaning_and_its_line() -> None:
    found = declared()
    names = [name for name, _ in found]
    assert sorted(names) == sorted(set(names)), "two declarations share a name"
    text = (TREE / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| ([A-Z_]+) \| (.+) \|$", text, re.MULTILINE)
    same("docs/errors.md", ((name, kind) for name, kind, _ in listed), found)


def test_errors_gives_each_kind_its_statuses() -> None:
    listed = [(kind, int(http), int(grpc)) for kind, http, grpc in rows("docs/errors.md", "kind")]
    assert listed == [(kind.name, kind.http, kind.grpc) for kind in Kind]


def test_guests_lists_what_the_sandbox_offers() -> None:
    table = [(quoted(name)[0], kind, meaning) for name, kind, meaning in rows("docs/guests.md", "function")]
    assert table == [
        (one.name, f"({', '.join(one.parameters)}) → {', '.join(one.results)}".rstrip(), one.meaning)
        for one in IMPORTS.values()
        if one.module == RINGFENCE
    ]
    page = (TREE / "docs" / "guests.md").read_text(encoding="utf-8")
    section = page.partition("## Imports from `wasi_snapshot_preview1`")[2].partition("\n## ")[0]
    same("docs/guests.md", quoted(section), (one.name for one in IMPORTS.values() if one.module == WASI))


def test_guests_lists_the_levels_checks_bounds_and_results() -> None:
    page = "docs/guests.md"
    assert [quoted(level)[0] for level, _, _ in rows(page, "level")] == list(Level)
    listed = [
        (quoted(name)[0], quoted(level)[0], code.strip("`"), threat)
        for name, level, code, threat in rows(page, "check")
    ]
    assert listed == [
        (check.name, check.level, "reports only" if check.code is None else check.code.name, check.threat)
        for check in CHECKS.values()
    ]
    bounds = [(what, int(most)) for what, most in rows(page, "of")]
    assert bounds == [("bytes", MAX_MODULE_BYTES), *MODULE_BOUNDS.items()]
    assert [quoted(kind)[0] for kind, _ in rows(page, "result")] == list(ResultType)


def test_guests_lists_the_kernels_gates_and_limits() -> None:
    kernels = {quoted(name)[0]: arguments.count(",") + 1 for name, arguments, _ in rows("docs/guests.md", "kernel")}
    same("docs/guests.md", kernels.items(), ((name, len(kernel.arguments)) for name, kernel in KERNELS.items()))
    page = (TREE / "docs" / "guests.md").read_text(encoding="utf-8")
    gates = page.partition("## Gates")[2].partition("\n## ")[0]
    same("docs/guests.md", quoted(gates), (gate.name for gate in Gate))
    limits = {quoted(name)[0]: (int(low), int(high)) for name, low, high, _ in rows("docs/guests.md", "limit")}
    same("docs/guests.md", limits.items(), BOUNDS.items())


def test_configuration_lists_the_groups_and_ceilings_of_the_shipped_policies() -> None:
    page, bundle = "docs/configuration.md", open_bundled("default")
    text = "\n".join(policy.text for policy in bundle.policies)
    same(page, (quoted(group)[0] for group, _ in rows(page, "group")), set(re.findall(r'::Group::"([^"]+)"', text)))
    ceilings = [(quoted(name)[0], int(most), quoted(policy)[0]) for name, most, policy in rows(page, "ceiling")]
    bounds = re.compile(r"^forbid .*[<>]=? \d{2,}", re.MULTILINE | re.DOTALL)
    bounding = [policy.id for policy in bundle.policies if bounds.search(policy.text)]
    same(page, (policy for _, _, policy in ceilings), bounding)
    decider = CedarDecider(bundle)
    job = Query("alice", ("job-submitters", "quantum-users"), Action.SUBMIT_JOB, "host", BASE_JOB)
    for name, most, policy in ceilings:
        values: Any = {name: most}
        assert decider.decide(replace(job, context=replace(BASE_JOB, **values))).allowed, f"{name} = {most}"
        values[name] += 1
        assert decider.decide(replace(job, context=replace(BASE_JOB, **values))).policies == (policy,)


def test_every_dependency_has_its_reason() -> None:
    document = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    wanted = [*project["dependencies"], *document["dependency-groups"]["dev"], *document["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[\[<>=~ ]", requirement)[0] for requirement in wanted} - {"ringfence"}
    reasons = (TREE / "docs" / "adr" / "0002-dependencies.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", reasons)] == []


def test_a_name_that_a_page_lacks_is_named() -> None:
    same("it.md", ["one", "two"], ["two", "one"])
    with pytest.raises(AssertionError, match=r"^it\.md lacks: trust\.hello$"):
        same("it.md", ["trust.expired"], ["trust.expired", "trust.hello"])
    with pytest.raises(AssertionError, match=r"^it\.md lacks: b 2; it\.md says what is not so: a 1, b 1$"):
        same("it.md", [("a", 1), ("b", 1)], [("b", 2)])
    with pytest.raises(AssertionError, match=r"^it\.md says what is not so: twice$"):
        same("it.md", ["twice", "twice"], ["twice"])


def test_decisions_are_numbered_and_have_one_form() -> None:
    records = sorted((TREE / "docs" / "adr").iterdir())
    for number, record in enumerate(records, 1):
        text = record.read_text(encoding="utf-8")
        assert record.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number}. ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_links_and_paths_lead_somewhere() -> None:
    dead = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
        dead += [f"{page.name}: {link}" for link in links if not (page.parent / link).exists()]
        tops = "|".join((*ROOTS, "tests", "tools", "docs"))
        paths = re.findall(rf"`((?:{tops})/[a-z0-9_./-]+)`", text)
        dead += [f"{page.name}: {path}" for path in paths if not (TREE / path).exists()]
    assert dead == []
