"""`ringfence policy` as a person or a pipeline runs it: output, JSON and exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

from ringfence.audit import AuditLog
from ringfence.audit.kinds import Asked, Decision
from ringfence.cli import main
from ringfence.crypto import COMPOSITE
from ringfence.policies.cases import BASE_JOB
from ringfence.policies.folder import shipped_folder
from ringfence.trust import KeyPair, generate
from ringfence.trust.keys import PUBLIC, armour


@pytest.fixture
def quotas(tmp_path: Path) -> Path:
    """A copy of a shipped bundle."""
    return Path(shutil.copytree(str(shipped_folder("quotas")), tmp_path / "quotas"))


@pytest.fixture
def tighter(tmp_path: Path, quotas: Path) -> Path:
    """The same with a lower quota, and its cases with it."""
    folder = Path(shutil.copytree(quotas, tmp_path / "tighter"))
    edit(folder / "policies/quotas.cedar", "> 600", "> 60")
    edit(folder / "tests/quotas.toml", "requests_minute = 60", "requests_minute = 6")
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = main(["policy", *map(str, arguments)])
    return status, capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, object]]:
    status, out = run(capsys, *arguments, "--json")
    document: dict[str, object] = json.loads(out)
    return status, document


def log_of(folder: Path, *verdicts: tuple[str, int, str]) -> tuple[Path, KeyPair]:
    """A log with a decision for each principal, requests a minute and verdict."""
    key = KeyPair(*COMPOSITE.generate())
    with AuditLog.open(folder / "gateway", key, clock_ns=lambda: 1, verify=COMPOSITE.verify) as log:
        for principal, requests, verdict in verdicts:
            context = msgspec.structs.replace(BASE_JOB, requests_minute=requests)
            facts = {name: tuple(one) if isinstance(one, list) else one for name, one in plain(context).items()}
            record = Decision(
                decision_id="d",
                pipeline="request",
                verdict=verdict,  # type: ignore[arg-type]
                principal=principal,
                action="SubmitJob",
                resource="gpu-1",
                asked=Asked(("job-submitters",), facts),
            )
            log.wait(log.append(record))
    return folder, key


def plain(context: object) -> dict[str, bool | int | str | list[str]]:
    built: dict[str, bool | int | str | list[str]] = msgspec.to_builtins(context)
    return built


def test_path_names_what_ships_and_a_bundles_files(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = as_json(capsys, "path")
    assert (status, "default" in said["bundles"]) == (0, True)  # type: ignore[operator]
    status, said = as_json(capsys, "path", "default")
    assert "policies/access.cedar" in said["files"]  # type: ignore[operator]
    assert run(capsys, "path", "no-such-bundle")[0] == 2


def test_fmt_lays_out_and_then_has_nothing_to_do(capsys: pytest.CaptureFixture[str], quotas: Path) -> None:
    policies = quotas / "policies/quotas.cedar"
    before = policies.read_text()
    policies.write_text(
        before.replace("forbid (principal, action, resource)\n", "forbid(principal,action,resource)// why\n")
    )
    assert run(capsys, "fmt", quotas, "--check")[0] == 1
    assert run(capsys, "fmt", quotas)[0] == 0
    assert run(capsys, "fmt", quotas, "--check")[0] == 0
    after = policies.read_text()
    assert "// why" in after
    assert after.count("@id(") == before.count("@id(")
    assert run(capsys, "test", quotas)[0] == 0


def test_check_test_and_coverage_of_a_good_bundle(
    capsys: pytest.CaptureFixture[str], quotas: Path, tmp_path: Path
) -> None:
    report, results = tmp_path / "f.sarif", tmp_path / "c.xml"
    assert as_json(capsys, "check", quotas, "--sarif", report) == (0, {"ok": True, "findings": []})
    assert json.loads(report.read_text())["version"] == "2.1.0"
    assert run(capsys, "test", quotas, "--junit", results, "--least", 100)[0] == 0
    suite = ElementTree.fromstring(results.read_text())  # noqa: S314 - our own output
    assert suite.get("failures") == "0"
    status, said = as_json(capsys, "coverage", quotas)
    assert (status, said["condition_coverage"]) == (0, 1.0)
    assert run(capsys, "coverage", quotas, "--missing")[1].startswith("policies 100%")


def test_a_case_that_fails_fails_the_command(capsys: pytest.CaptureFixture[str], quotas: Path, tmp_path: Path) -> None:
    edit(quotas / "policies/quotas.cedar", "> 600", "> 60")
    results = tmp_path / "c.xml"
    status, said = as_json(capsys, "test", quotas, "--junit", results)
    assert (status, said["ok"]) == (1, False)
    assert ElementTree.fromstring(results.read_text()).get("failures") == "1"  # noqa: S314 - our own output


def test_check_names_file_line_and_remedy(capsys: pytest.CaptureFixture[str], quotas: Path) -> None:
    edit(quotas / "policies/quotas.cedar", "requests_minute > 600", "requests_minute < 0")
    status, out = run(capsys, "check", quotas)
    assert status == 1
    assert out.startswith("policies/quotas.cedar:3: warning: No request")
    assert "\n    Remove it" in out


def test_a_witness_of_diff_can_be_explained(
    capsys: pytest.CaptureFixture[str], quotas: Path, tighter: Path, tmp_path: Path
) -> None:
    assert as_json(capsys, "diff", quotas, quotas) == (0, {"equal": True, "witnesses": [], "unclear": []})
    status, said = as_json(capsys, "diff", quotas, tighter)
    assert (status, said["equal"]) == (1, False)
    witnesses = said["witnesses"]
    assert isinstance(witnesses, list)
    assert {(one["before"], one["after"]) for one in witnesses} == {("allow", "deny")}
    assert "newly denied: SubmitJob, with" in run(capsys, "diff", quotas, tighter)[1]
    query = tmp_path / "query.json"
    query.write_text(json.dumps(witnesses[0]["request"]))
    for bundle, decision in ((quotas, "allow"), (tighter, "deny")):
        assert as_json(capsys, "explain", bundle, "--query", query)[1]["decision"] == decision
    out = run(capsys, "explain", tighter, "--query", query)[1]
    assert "with requests_minute = 60: allowed" in out
    query.write_text('{"principal": "a"}')
    assert run(capsys, "explain", tighter, "--query", query)[0] == 2


def test_a_case_is_explained_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "explain", "default", "--case", "high risk is refused")
    assert (status, "with risk = 69: allowed" in out) == (0, True)
    assert run(capsys, "explain", "default", "--case", "no such case")[0] == 2


def test_replay_counts_what_changes_and_for_whom(
    capsys: pytest.CaptureFixture[str], quotas: Path, tighter: Path, tmp_path: Path
) -> None:
    log, key = log_of(tmp_path / "audit", ("alice", 10, "allow"), ("bob", 100, "allow"), ("bob", 200, "allow"))
    assert run(capsys, "replay", quotas, "--log", log)[0] == 0
    status, said = as_json(capsys, "replay", tighter, "--log", log)
    assert (status, said["replayed"], said["newly_denied"], said["verified"]) == (1, 3, 2, False)
    assert said["principals"] == [{"change": "newly denied", "principal": "bob", "count": 2}]
    assert "bob" not in run(capsys, "replay", tighter, "--log", log, "--mask")[1]
    owner, other = tmp_path / "owner.pub", generate(tmp_path, "other")
    owner.write_bytes(armour(PUBLIC, key.public))
    assert as_json(capsys, "replay", tighter, "--log", log, "--key", owner)[1]["verified"] is True
    assert other.key_id != key.key_id
    assert run(capsys, "replay", tighter, "--log", log, "--key", tmp_path / "other.pub")[0] == 1
    (records,) = (log / "gateway").glob("records*")
    records.write_bytes(records.read_bytes().replace(b"alice", b"mallo"))
    assert run(capsys, "replay", tighter, "--log", log, "--key", owner)[0] == 1


def test_sign_and_verify(capsys: pytest.CaptureFixture[str], quotas: Path, tmp_path: Path) -> None:
    generate(tmp_path, "signer")
    trust = tmp_path / "trust.toml"
    assert main(["trust", "add", "policy-signer", "ops", str(tmp_path / "signer.pub"), "--file", str(trust)]) == 0
    capsys.readouterr()
    assert run(capsys, "verify", quotas, "--file", trust)[0] == 1
    assert run(capsys, "sign", quotas, "--key", tmp_path / "signer.key")[0] == 0
    status, said = as_json(capsys, "verify", quotas, "--file", trust)
    assert (status, said["signer"], said["version"]) == (0, "ops", 1)
    assert run(capsys, "check", quotas)[0] == 0
    edit(quotas / "policies/quotas.cedar", "> 600", "> 60")
    assert run(capsys, "verify", quotas, "--file", trust)[0] == 1
    assert run(capsys, "sign", quotas, "--key", tmp_path / "signer.key")[0] == 1  # its cases fail


@pytest.mark.parametrize(
    "arguments", [["test", "default", "--least", "101"], ["diff", "default", "./nowhere"], ["replay", "default"]]
)
def test_wrong_use_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["policy", *arguments]) == 2
    assert "ringfence: " in capsys.readouterr().err


def test_without_the_solver_the_missing_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'z3':\n"
        "            raise ModuleNotFoundError('not installed here', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from ringfence.cli import main\n"
        "sys.exit(main(['policy', 'diff', 'default', 'default']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ringfence: usage.missing_extra (z3): ")
    assert "policy-tools" in done.stderr
