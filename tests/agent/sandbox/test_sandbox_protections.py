"""The protections of a host: what a job of each level needs, what may be accepted, and that each is really tried."""

from __future__ import annotations

import itertools
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from ringfence.agent.config import AgentConfig
from ringfence.agent.confine.protections import PROTECTIONS, Acceptable, Need, refusal, survey, try_namespaces
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.lockdown import HostFeatures, probe
from ringfence.config import ConfigError, load

NAMES = frozenset(protection.name for protection in PROTECTIONS)
ACCEPTABLE = frozenset(typing.get_args(Acceptable))


def needed(level: Level, accepted: frozenset[str] = frozenset()) -> set[str]:
    """The protections without which alone a host refuses jobs of `level`."""
    return {name for name in NAMES if refusal(level, NAMES - {name}, accepted) is not None}


@pytest.mark.parametrize("level", Level)
def test_a_host_with_every_protection_takes_every_level(level: Level) -> None:
    assert refusal(level, NAMES, frozenset()) is None


@pytest.mark.parametrize("level", Level)
def test_what_a_job_needs_depends_on_its_level(level: Level) -> None:
    always = {"seccomp", "no_new_privs", "pidfd", "memfd"}
    assert needed(level) == (always | {"landlock", "namespaces"} if level.locked else always)


def test_only_what_is_accepted_by_name_may_be_absent() -> None:
    for size in range(3):
        for accepted in map(frozenset, itertools.combinations(sorted(ACCEPTABLE), size)):
            assert needed(Level.HIGH) - needed(Level.HIGH, accepted) == accepted


def test_what_is_always_needed_cannot_be_accepted_away() -> None:
    for level in Level:
        assert needed(level, NAMES) == {"seccomp", "no_new_privs", "pidfd", "memfd"}


def test_the_configuration_accepts_what_is_strict_and_nothing_else() -> None:
    assert {protection.name for protection in PROTECTIONS if protection.need is Need.STRICT} == ACCEPTABLE


def test_a_refusal_says_what_is_missing_and_what_to_do() -> None:
    error = refusal(Level.QUANTUM, NAMES - {"landlock"}, frozenset({"namespaces"}))
    assert error is not None
    assert str(error) == (
        "sandbox.protection_missing (landlock): This host lacks landlock, which a job at level quantum needs: it "
        "denies every file a second time. Boot with landlock in lsm= (Linux 5.13 or later). Or accept it: [sandbox] "
        'accept_missing = ["landlock"].'
    )
    error = refusal(Level.LOW, NAMES - {"seccomp"}, NAMES)
    assert error is not None
    assert "accept" not in error.hint


ALL = HostFeatures(landlock_abi=1, seccomp=True, userns=True, memfd_secret=True, pidfd=True, cgroup2_delegated=True)
NONE = HostFeatures(
    landlock_abi=0, seccomp=False, userns=False, memfd_secret=False, pidfd=False, cgroup2_delegated=False
)


def test_a_survey_names_what_is_there() -> None:
    """no_new_privs and memfd are of every kernel that these tests run on."""
    assert survey(ALL, namespaces=True) == NAMES
    assert survey(NONE, namespaces=False) == {"no_new_privs", "memfd"}
    assert survey(probe(), namespaces=False) >= {"seccomp", "no_new_privs", "pidfd", "memfd"}


def test_namespaces_are_tried_and_not_looked_up() -> None:
    flags = ["--net", "--ipc", "--uts", "--mount", "--propagation", "unchanged", "--pid", "--fork", "true"]
    tried = [
        subprocess.run(["unshare", *user, *flags], check=False, capture_output=True).returncode
        for user in (["--user"], [])
    ]
    assert try_namespaces() is (0 in tried)


WITHOUT = """
import ctypes, struct, sys
from ringfence.agent.confine import kernel, seccomp
# Every process from here on is refused unshare(2) with EPERM, as in a container.
number = {"x86_64": 272, "aarch64": 97}[kernel.architecture()]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
packed = b"".join(struct.pack("<HBBI", *one) for one in code)
buffer = ctypes.create_string_buffer(packed, len(packed))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
program = struct.pack("@HP", len(code), ctypes.addressof(buffer))
assert libc.prctl(22, ctypes.c_ulong(2), program, ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
from ringfence.agent.confine.protections import try_namespaces
print(try_namespaces())
"""


def test_a_host_that_forbids_namespaces_lacks_them() -> None:
    asked = subprocess.run([sys.executable, "-c", WITHOUT], check=True, capture_output=True, text=True)
    assert asked.stdout == "False\n"


def configured(folder: Path, lines: str) -> AgentConfig:
    path = folder / "agent.toml"
    path.write_text(f'component = "agent"\nsocket = "s"\nstate = "st"\nkey = "k"\ntrust = "t"\n{lines}\n')
    return load(path, AgentConfig)


def test_a_configuration_accepts_by_name(tmp_path: Path) -> None:
    assert configured(tmp_path, "").sandbox.accept_missing == ()
    config = configured(tmp_path, '[sandbox]\naccept_missing = ["namespaces", "landlock"]')
    present = frozenset({"seccomp", "no_new_privs", "pidfd", "memfd"})
    assert refusal(Level.HIGH, present, frozenset(config.sandbox.accept_missing)) is None


@pytest.mark.parametrize("name", [*sorted(NAMES - ACCEPTABLE), "", "Landlock", "all"])
def test_a_configuration_cannot_accept_anything_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, f'[sandbox]\naccept_missing = ["landlock", "{name}"]')
    assert (caught.value.field, caught.value.line) == ("sandbox.accept_missing[1]", 7)
    assert "; it takes landlock, namespaces." in caught.value.message


def test_a_configuration_has_a_ceiling_for_compute_units(tmp_path: Path) -> None:
    assert configured(tmp_path, "").limits.ceiling().compute_units == 64
    assert configured(tmp_path, "[limits]\ncompute_units = 16").limits.ceiling().compute_units == 16
    for wrong in (0, 65, -1, '"all"'):
        with pytest.raises(ConfigError, match=r"limits\.compute_units"):
            configured(tmp_path, f"[limits]\ncompute_units = {wrong}")


def test_a_configuration_names_what_is_watched(tmp_path: Path) -> None:
    lines = '[sandbox.monitor]\ncheckpoint_gap_ms = 500\nkill = ["checkpoints"]'
    monitor = configured(tmp_path, lines).sandbox.monitor
    assert (monitor.checkpoint_gap_ms, [watched.value for watched in monitor.kill]) == (500, ["checkpoints"])
    with pytest.raises(ConfigError, match="'cpu'; it takes processor, memory, commands, checkpoints"):
        configured(tmp_path, '[sandbox.monitor]\nkill = ["cpu"]')


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('kill = ["commands"]', "'commands', which commands_per_second = 0 leaves unwatched"),
        ('kill = ["processor", "checkpoints"]', "'checkpoints', which checkpoint_gap_ms = 0 leaves unwatched"),
        ('processor_percent = 0\nkill = ["processor"]', "'processor', which processor_percent = 0"),
        ('memory_percent = 0\nkill = ["memory"]', "'memory', which memory_percent = 0"),
    ],
)
def test_a_configuration_kills_for_nothing_that_it_does_not_watch(tmp_path: Path, lines: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        configured(tmp_path, f"[sandbox.monitor]\n{lines}")
    assert (caught.value.field, caught.value.line) == ("sandbox.monitor", 6)
