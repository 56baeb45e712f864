"""The `ringfence` command itself: finding commands, `--json`, errors, exit statuses, and what `--help` costs."""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.cli import main
from ringfence.errors import Code, Kind, RingfenceError
from ringfence.frame import commands, exit_status, summary

HELP_BUDGET_S = 0.150

# Commands as another installation of Ringfence could register them: the real frame finds and runs these.
PROBES = {
    "plain": '''
        """Prints what it was given, 100% of it."""
        def configure(parser):
            parser.add_argument("word", nargs="?")
        def run(arguments):
            print("json" if arguments.json else "text", arguments.word)
            return 0
    ''',
    "nested": '''
        # a comment first
        r"""Has actions.

        More text.
        """
        def configure(parser):
            actions = parser.add_subparsers(dest="action", required=True)
            actions.add_parser("show").add_argument("--json", action="store_true", help="of its own")
            actions.add_parser("hide")
        def run(arguments):
            print(arguments.action, arguments.json)
            return 0
    ''',
    "refuses": '''
        """Refuses."""
        from ringfence.errors import Code, Kind, RingfenceError
        def configure(parser):
            pass
        def run(arguments):
            raise RingfenceError(Code("probe.denied", Kind.DENIED), "It\\x1b[2J\\nfailed.", field="f", hint="Do that.")
    ''',
    "opens": '''
        """Opens a file that is not there."""
        def configure(parser):
            pass
        def run(arguments):
            open("not there")
    ''',
    "missing": '''
        """Needs a library that is not installed."""
        def configure(parser):
            pass
        def run(arguments):
            import wasmtime.loader
    ''',
    "gateway": '''
        """Needs a library at import."""
        import grpc
        def configure(parser):
            pass
    ''',
    "broken": '''
        """Has a bug."""
        def configure(parser):
            pass
        def run(arguments):
            import no_such_module_of_ours
    ''',
    "endless": '''
        """Writes until its reader goes away."""
        def configure(parser):
            pass
        def run(arguments):
            while True:
                print("line")
    ''',
    "waits": '''
        """Waits."""
        import time
        def configure(parser):
            pass
        def run(arguments):
            print("ready", flush=True)
            time.sleep(60)
    ''',
    "unlisted": "import does_not_exist",
}


def install(folder: Path, package: str) -> Path:
    information = folder / "ringfence-9.9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ringfence\nVersion: 9.9\n")
    registered = [f"{name} = probes.{name}" for name in PROBES]
    (information / "entry_points.txt").write_text("\n".join(["[ringfence.commands]", *registered, ""]))
    (folder / "probes").mkdir()
    (folder / "probes" / "__init__.py").write_text(package)
    for name, text in PROBES.items():
        lines = [line.removeprefix(" " * 8) for line in text.strip("\n").split("\n")]
        (folder / "probes" / f"{name}.py").write_text("\n".join(lines) + "\n")
    # Libraries that are not installed, and one that is there but cannot be loaded.
    (folder / "wasmtime.py").write_text("raise ModuleNotFoundError(\"No module named 'wasmtime'\", name='wasmtime')\n")
    (folder / "grpc.py").write_text("raise ImportError('libssl.so.9: cannot open', name='grpc._cython')\n")
    return folder


@pytest.fixture(scope="module")
def unimportable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "raise AssertionError('a command was imported')\n")


@pytest.fixture(scope="module")
def runnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "")


def start(site: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ringfence.cli", *arguments],
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests may ignore it, as a shell does for what runs in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def outcome(site: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(site, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_help_lists_every_command_with_its_first_line_and_imports_none(unimportable: Path) -> None:
    status, out, err = outcome(unimportable, "--help")
    assert (status, err) == (0, "")
    assert [line.split(maxsplit=1) for line in out.split("COMMAND\n")[1].split("\n\n")[0].split("\n")] == [
        ["broken", "Has a bug."],
        ["endless", "Writes until its reader goes away."],
        ["gateway", "Needs a library at import."],
        ["missing", "Needs a library that is not installed."],
        ["nested", "Has actions."],
        ["opens", "Opens a file that is not there."],
        ["plain", "Prints what it was given, 100% of it."],
        ["refuses", "Refuses."],
        ["unlisted"],
        ["waits", "Waits."],
    ]


def test_version_is_the_installed_one(unimportable: Path) -> None:
    assert outcome(unimportable, "--version") == (0, "ringfence 9.9\n", "")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("plain", "a"), "text a\n"),
        (("plain", "--json", "a"), "json a\n"),
        (("--json", "plain"), "json None\n"),
        (("nested", "hide"), "hide False\n"),
        (("nested", "hide", "--json"), "hide True\n"),
        (("nested", "--json", "hide"), "hide True\n"),
        (("nested", "show", "--json"), "show True\n"),
    ],
)
def test_every_command_takes_json_in_every_place(runnable: Path, arguments: tuple[str, ...], printed: str) -> None:
    assert outcome(runnable, *arguments) == (0, printed, "")


def test_a_refusal_is_one_line_that_cannot_drive_the_terminal(runnable: Path) -> None:
    status, out, err = outcome(runnable, "refuses")
    assert (status, out, err) == (1, "", "ringfence: probe.denied (f): It\\x1b[2J\\nfailed. Do that.\n")


def test_a_refusal_for_programs_is_one_document(runnable: Path) -> None:
    status, out, _ = outcome(runnable, "refuses", "--json")
    assert status == 1
    assert json.loads(out) == {
        "error": {"code": "probe.denied", "message": "It\x1b[2J\nfailed.", "field": "f", "hint": "Do that."}
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "usage.bad_argument: the following arguments are required: COMMAND"),
        (("nope",), "usage.bad_argument: argument COMMAND: invalid choice: 'nope'"),
        (("plain", "--wrong"), "usage.bad_argument: unrecognized arguments: --wrong"),
        (("plain", "--js"), "usage.bad_argument: unrecognized arguments: --js"),
        (("nested",), "See `ringfence nested --help`."),
        (("opens",), "usage.unreadable_file: No such file or directory: not there."),
    ],
)
def test_wrong_use_is_one_line_and_status_2(runnable: Path, arguments: tuple[str, ...], says: str) -> None:
    status, out, err = outcome(runnable, *arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_missing_library_names_the_extra(runnable: Path) -> None:
    status, _, err = outcome(runnable, "missing")
    assert status == 1
    assert (
        "usage.missing_extra (wasmtime): `ringfence missing` needs the library wasmtime, which is not installed" in err
    )
    assert "In the folder of the clone, run: pip install '.[agent]'" in err


def test_a_library_that_does_not_load_names_the_extra_of_the_command(runnable: Path) -> None:
    status, _, err = outcome(runnable, "gateway")
    assert status == 1
    assert "is installed but cannot be loaded" in err
    assert "In the folder of the clone, run: pip install '.[gateway]'" in err


def test_an_import_that_no_extra_brings_is_a_bug_and_stays_visible(runnable: Path) -> None:
    status, _, err = outcome(runnable, "broken")
    assert status == 1
    assert "Traceback" in err
    assert "no_such_module_of_ours" in err


def test_a_reader_that_goes_away_ends_the_command_quietly(runnable: Path) -> None:
    process = start(runnable, "endless")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_an_interrupt_ends_the_command_with_130(runnable: Path) -> None:
    process = start(runnable, "waits")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130


def test_an_interrupt_while_the_command_loads_ends_it_with_130(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    process = start(tmp_path, "trust", "list")
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130


def test_statuses_tell_wrong_use_from_a_refusal() -> None:
    for kind in Kind:
        status = exit_status(RingfenceError(Code("probe.any", kind), "It failed."))
        assert status == (2 if kind in (Kind.INVALID, Kind.NOT_FOUND, Kind.TOO_LARGE) else 1)


def test_main_returns_instead_of_exiting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trust", "--help"]) == 0
    assert main(["trust", "list", "--no-such"]) == 2
    assert "usage: ringfence trust" in capsys.readouterr().out


def test_every_real_command_says_what_it_does() -> None:
    for name, module in commands().items():
        assert summary(module).endswith("."), f"{name}: {module} needs a docstring with a first line"


def test_a_module_that_is_not_there_has_no_summary() -> None:
    assert summary("ringfence.no_such_part.cli") == ""
    assert summary("ringfence") == ""


def processor_seconds(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_at_most_150_ms_more_than_the_interpreter() -> None:
    """Processor time, pairwise: what other processes take from the machine meanwhile is no cost of ours."""
    pairs = [(processor_seconds("-c", "pass"), processor_seconds("-m", "ringfence.cli", "--help")) for _ in range(7)]
    extra = statistics.median(full - bare for bare, full in pairs)
    assert extra <= HELP_BUDGET_S, f"`ringfence --help` costs {extra * 1000:.0f} ms more than the bare interpreter"


LOADED_BY_HELP = """
import sys
bare = set(sys.modules)
import ringfence.cli
ringfence.cli.main(["--help"])
print(*sorted({name.split(".")[0] for name in set(sys.modules) - bare}), file=sys.stderr)
"""


def test_help_loads_nothing_but_the_standard_library_and_the_frame() -> None:
    listed = subprocess.run([sys.executable, "-c", LOADED_BY_HELP], check=True, capture_output=True, text=True)
    assert set(listed.stderr.split()) - set(sys.stdlib_module_names) == {"ringfence"}
