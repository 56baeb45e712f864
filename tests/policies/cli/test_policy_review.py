"""The review comment, on a git repository with two commits, and what hostile text in it cannot do."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ringfence.cli import main
from ringfence.policies.analysis.coverage import Coverage
from ringfence.policies.analysis.diff import Difference
from ringfence.policies.bundle import Bundle
from ringfence.policies.decision import Action
from ringfence.policies.folder import open_bundled, shipped_folder
from ringfence.policies.replay import Replay
from ringfence.policies.review import MAX_ROWS, Review, Side, code, markdown

DOCS = Path(__file__).resolve().parents[3] / "docs/policies"
HOSTILE = "<script>x</script> @octocat [a](http://evil) ![i](//e) `b` | **c** www.evil.example #1\n# head\x1b[31m"


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose second commit lowers a quota; the first is checked out beside it, in `base`."""
    root = tmp_path / "repository"
    shutil.copytree(str(shipped_folder("quotas")), root / "policies")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "one")
    git(root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "base"))
    for path, old, new in (
        ("policies/policies/quotas.cedar", "> 600", "> 60"),
        ("policies/tests/quotas.toml", "requests_minute = 60", "requests_minute = 6"),
        ("policies/manifest.toml", "version = 1", "version = 2"),
    ):
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new))
    git(root, "commit", "--quiet", "--all", "-m", "two")
    return root


def test_two_commits_are_reviewed(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comment = tmp_path / "comment.md"
    base, head = str(tmp_path / "base/policies"), str(repository / "policies")
    assert main(["policy", "review", base, head, "--output", str(comment)]) == 0
    text = comment.read_text()
    assert capsys.readouterr().out == ""
    assert text.startswith("<!-- ringfence policy review -->\n## Policy review: <code>quotas</code>\n")
    assert "| change of decisions | **yes**, see below |" in text
    assert "| cases | 11 of 11 hold (before: 11) |" in text
    assert "| version | 1 → 2 |" in text
    assert text.count("**newly denied**") == len(Action)
    assert "| changed | <code>forbid-requests-over-quota</code> | forbid |" in text
    assert "newly allowed" not in text


def test_a_bundle_that_does_not_load_is_said(repository: Path, tmp_path: Path) -> None:
    (repository / "policies/policies/quotas.cedar").write_text("permit (")
    comment = tmp_path / "comment.md"
    arguments = [str(tmp_path / "base/policies"), str(repository / "policies"), "--output", str(comment)]
    assert main(["policy", "review", *arguments]) == 1
    assert "**The proposed bundle does not load**" in comment.read_text()
    assert "policies/quotas" in comment.read_text().replace("&#47;", "/")


def review(head: Bundle, replay: Replay | None = None) -> str:
    nothing = Coverage(())
    sides = (Side(open_bundled("default"), (), nothing), Side(head, (), nothing))
    return markdown(Review(*sides, Difference(True, (), ()), (), replay, verified=False))


def test_text_from_a_bundle_is_text() -> None:
    default = open_bundled("default")
    hostile = replace(default.policies[0], id=HOSTILE, description=HOSTILE)
    text = review(replace(default, name=HOSTILE, policies=(hostile, *default.policies[1:])))
    for bad in ("<script", "@octocat", "](", "`", "**c**", "www.", "http:", "\x1b", "\n# head"):
        assert bad not in text
    shown = re.findall(r"<code>(.*?)</code>", code(HOSTILE))
    assert len(shown) == 1
    assert set(re.sub(r"&#\d+;", "", shown[0])) <= set('abcdefghijklmnopqrstuvwxyz0123456789 ,-;=+"')


def test_names_from_a_log_are_numbers_and_long_tables_are_cut() -> None:
    replay = Replay(replayed=1_000)
    for number in range(MAX_ROWS + 5):
        replay.changed["newly denied"] += 1
        replay.principals["newly denied", f"secret-{number}"] += 1
        replay.actions["newly denied", "Access"] += 1
    replay.policies["newly denied", HOSTILE] += 1
    text = review(open_bundled("default"), replay)
    assert "secret" not in text
    assert "| 1 | newly denied | caller 1 |" in text
    assert "…and 5 more." in text
    assert "@octocat" not in text
    assert "**not** checked against a key" in text


@pytest.mark.parametrize("name", ["github-review.yml", "gitlab-review.yml"])
def test_the_example_workflows_run_commands_that_exist(name: str) -> None:
    text = (DOCS / name).read_text()
    assert isinstance(yaml.safe_load(text), dict)
    used = set(re.findall(r"ringfence policy ([a-z]+)", text))
    assert used >= {"review", "test"}
    for command in used:
        assert main(["policy", command, "--help"]) == 0


def test_the_github_workflow_gives_a_stranger_nothing() -> None:
    text = (DOCS / "github-review.yml").read_text()
    workflow = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1 reads the key `on` as a truth
    assert set(triggers) == {"pull_request"}
    assert workflow["permissions"] == {}
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {"contents": "read", "pull-requests": "write"}
    for step in job["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
            assert step["with"]["persist-credentials"] is False
        # What others chose never becomes part of a script: it arrives in the environment, if at all.
        assert "${{" not in step.get("run", "")
    assert "${{ secrets" not in text


def test_the_gitlab_pipeline_runs_for_merge_requests_alone() -> None:
    (job,) = yaml.safe_load((DOCS / "gitlab-review.yml").read_text()).values()
    assert all("merge_request_event" in rule["if"] for rule in job["rules"])
