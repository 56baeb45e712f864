"""docs/configuration.md does what it says: its console blocks are run, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def session() -> list[tuple[str, str]]:
    """Each command of the page with the output that the page shows for it."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            steps.append((command, shown))
    return steps


def matches(shown: str, printed: str) -> bool:
    """Whether `printed` is what is shown, where `…` stands for anything, even for further lines."""
    pattern = ".*".join(re.escape(piece) for piece in shown.rstrip("\n").split("…"))
    return re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL) is not None


def test_the_page_shows_what_its_commands_print(tmp_path: Path) -> None:
    steps = session()
    assert len(steps) > 10
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, shown in steps:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert matches(shown, done.stdout), f"$ {command}\n{done.stdout}"


def test_a_page_that_shows_something_else_would_be_noticed() -> None:
    assert matches("a … c", "a b\nb c")
    assert not matches("a … c", "a b d")
    assert not matches("", "a")
