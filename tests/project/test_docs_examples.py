"""What the documents show is what happens: their commands, programs and guests are run and compared.

A `console` block is a session: `$ ` lines, each with the `> ` lines after it, are run, in order, in one folder for each
page, and `…` stands for anything, even for further lines. `make demo` is run as `ringfence demo`, because the set-up
has tests of its own. A `text` block is not run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ringfence import httpsig
from ringfence.client.local import LocalInstallation
from ringfence.crypto import CryptoError

TREE = Path(__file__).resolve().parents[2]
README = TREE / "README.md"
CONFIGURATION = TREE / "docs" / "configuration.md"
GUESTS = TREE / "docs" / "guests.md"
POLICIES = TREE / "docs" / "policies.md"
ARCHITECTURE = TREE / "docs" / "architecture.md"
STANDS_FOR = {"make demo": f'"{sys.executable}" -m ringfence.cli demo'}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def session(page: Path) -> list[tuple[str, str]]:
    """Each command of a page with the output that the page shows for it."""
    steps = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            first, *lines = part.splitlines()
            further = list(itertools.takewhile(lambda line: line.startswith(">"), lines))
            command = "\n".join([first, *(line.removeprefix(">").removeprefix(" ") for line in further)])
            steps.append((command, "\n".join(lines[len(further) :])))
    return steps


def matches(shown: str, printed: str) -> bool:
    """Whether `printed` is what is shown."""
    pattern = ".*".join(re.escape(piece) for piece in shown.rstrip("\n").split("…"))
    return re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL) is not None


def play(page: Path, folder: Path) -> None:
    """Run a page's session in `folder`; fail at the first command that prints something else.

    What it starts in the background is ended with the session, however that ends.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # The compiler's cache, which would else be left in the home folder.
        "ZIG_GLOBAL_CACHE_DIR": str(folder / "zig-cache"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-cache"),
    }
    started: list[int] = []
    try:
        for command, shown in session(page):
            printed = step(STANDS_FOR.get(command, command), folder, environment, started)
            assert matches(shown, printed), f"$ {command}\n{printed}"
    finally:
        for group in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        for file in folder.glob("*.pid"):  # of what left its group to become a daemon
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)


def step(command: str, folder: Path, environment: dict[str, str], started: list[int]) -> str:
    """What one command prints; its process group is added to `started`."""
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        started.append(process.pid)
        return process.communicate(timeout=120)[0]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The guest of docs/guests.md; every guest of the page is compiled and run as the page says."""
    folder = tmp_path_factory.mktemp("a guest")
    # What introduces a source names its file.
    sources = re.findall(
        r"`([a-z]+\.(?:c|wat))`[^\n]*\n\n```(?:c|wat)\n(.*?)^```$",
        GUESTS.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert len(sources) == len(blocks(GUESTS, "c")) + len(blocks(GUESTS, "wat"))
    for name, source in sources:
        (folder / name).write_text(source, encoding="utf-8")
    play(GUESTS, folder)
    return (folder / "guest.wasm").read_bytes()


def test_the_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    assert [command for command, _ in session(README)] == ["make demo"]
    play(README, tmp_path)


def test_the_configuration_page_sets_up_an_installation_that_runs_a_job() -> None:
    with tempfile.TemporaryDirectory(prefix="rf-docs-") as made:  # short enough for sockets
        play(CONFIGURATION, Path(made))


def test_the_policies_page_writes_reviews_and_signs_a_bundle(tmp_path: Path) -> None:
    play(POLICIES, tmp_path)


def test_make_has_every_target_that_the_documents_name() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (TREE / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for page in (README, TREE / "CONTRIBUTING.md", *sorted((TREE / "docs").rglob("*.md")))
        for target in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))
    }
    assert {"demo", "test"} <= named <= targets


def test_the_library_example_runs_the_guest_of_the_other_page(tmp_path: Path, guest: bytes) -> None:
    (program,) = blocks(README, "python")
    shown = next(block for block in blocks(README, "text") if not block.startswith("$ "))
    (tmp_path / "guest.wasm").write_bytes(guest)
    with LocalInstallation(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert matches(shown, done.stdout), done.stdout + done.stderr
    assert done.stdout[len("sum of squares 30, coin ")] in "01"


def test_every_python_block_is_the_one_that_is_run() -> None:
    pages = (README, TREE / "CONTRIBUTING.md", TREE / "SECURITY.md", *sorted((TREE / "docs").rglob("*.md")))
    # The second one is run by tests/foundation/crypto/test_crypto_page.py.
    assert [page for page in pages for _ in blocks(page, "python")] == [README, TREE / "docs" / "cryptography.md"]


def test_the_signed_request_of_the_profile_verifies() -> None:
    (request,) = blocks(ARCHITECTURE, "http")
    head, _, body = request.rstrip("\n").partition("\n\n")
    line, *lines = head.split("\n")
    method, path, _version = line.split(" ")
    fields = {name.lower(): value for name, _, value in (field.partition(": ") for field in lines)}
    presented = httpsig.parse(httpsig.fields(fields.items()))
    target = httpsig.Target(method, fields["host"], path)
    httpsig.verify(presented, bytes(range(32)), target, now=presented.created_at)
    httpsig.verify_body(presented, body.encode())
    with pytest.raises((httpsig.IntegrityError, CryptoError)):
        httpsig.verify(presented, bytes(32), target, now=presented.created_at)


def test_a_page_that_shows_something_else_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "```console\n$ echo one\none\n$ cat <<END\n> a\n>\n>  b\n> END\na\n\n b\n$ echo two\nthree\n```\n"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match="echo two"):
        play(page, tmp_path)


def test_what_a_page_starts_ends_with_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ sleep 60 > /dev/null 2>&1 & echo $!\nno number\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError) as caught:
        play(page, tmp_path)
    pid = int(str(caught.value).splitlines()[1])
    give_up = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < give_up, "what the page started is still there"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process is there, and is no zombie that waits for its parent."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rsplit(")", 1)[1].split()[0] not in "ZX"


def test_what_is_shown_stands_for_what_is_printed() -> None:
    assert matches("a … c", "a b\nb c")
    assert not matches("a … c", "a b d")
