"""The generated protobuf code is what the .proto files of the tree give, and its imports name our package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
GENERATOR = TREE / "tools" / "generate_proto.py"
TINY = """syntax = "proto3";
package ringfence.tiny.v1;
message Ping { string text = 1; }
service Tiny { rpc Send(Ping) returns (Ping); }
"""


def generate(tree: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GENERATOR), "--tree", str(tree), "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def tiny_tree(tmp_path: Path) -> Path:
    tree = tmp_path / "a checkout"
    folder = tree / "agent" / "ringfence" / "agent" / "api"
    folder.mkdir(parents=True)
    (folder / "tiny.proto").write_text(TINY, encoding="utf-8")
    return tree


def test_the_committed_code_is_current(tmp_path: Path) -> None:
    outcome = generate(TREE, tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    fresh = contents(tmp_path)
    committed = {
        str(Path("ringfence", path.parent.relative_to(root / "ringfence"), "_pb", name)): content
        for root in TREE.iterdir()
        for path in root.glob("ringfence/**/*.proto")
        for name, content in contents(path.parent / "_pb").items()
    }
    assert sorted(fresh) == sorted(committed)
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert stale == [], "run `make generate` and commit what it writes"


def test_generated_services_import_their_messages_from_our_package(tiny_tree: Path, tmp_path: Path) -> None:
    outcome = generate(tiny_tree, tmp_path / "out")
    assert outcome.returncode == 0, outcome.stderr
    folder = tmp_path / "out" / "ringfence" / "agent" / "api" / "_pb"
    assert "from ringfence.agent.api._pb import tiny_pb2" in (folder / "tiny_pb2_grpc.py").read_text(encoding="utf-8")
    assert {"__init__.py", "tiny_pb2.py", "tiny_pb2.pyi", "tiny_pb2_grpc.py", "tiny_pb2_grpc.pyi"} == set(
        contents(folder)
    )


def test_a_broken_definition_fails_and_is_named(tiny_tree: Path, tmp_path: Path) -> None:
    (tiny_tree / "agent/ringfence/agent/api/tiny.proto").write_text("message {", encoding="utf-8")
    outcome = generate(tiny_tree, tmp_path / "out")
    assert outcome.returncode == 1
    assert "agent/ringfence/agent/api/tiny.proto was not compiled" in outcome.stderr
