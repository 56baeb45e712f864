"""The protections of a host by name: which it has, what each is for, and which a job of a level cannot do without.

`refusal` is pure; `survey` finds out, by really trying in a process that ends where nothing less would tell.
"""

from __future__ import annotations

import ctypes
import enum
import fcntl
import os
import subprocess
import sys
from collections.abc import Set
from dataclasses import dataclass
from typing import Final, Literal

from ringfence.agent.errors import PROTECTION_MISSING, SandboxError
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.lockdown import HostFeatures

_PR_GET_NO_NEW_PRIVS: Final = 39  # include/uapi/linux/prctl.h
_TRIAL_S: Final = 10.0
# What the zygote does, in a process of its own.
_TRY_NAMESPACES: Final = """
import sys
from ringfence.agent.confine import namespaces
sys.exit(not namespaces.enter(frozenset()))
"""

Acceptable = Literal["landlock", "namespaces"]
"""The protections whose absence a configuration may accept by name."""


class Need(enum.Enum):
    """When a job cannot run without a protection.

    ALWAYS     at no level
    STRICT     not at `high` and `quantum`, unless the configuration accepts by name that the host lacks it
    STOOD_IN   at every level: where the host lacks it, something else does the same for each job
    """

    ALWAYS = "always"
    STRICT = "strict"
    STOOD_IN = "stood in"


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection: `meaning` completes "it ..."; `mend` says how a host gets it."""

    name: str
    need: Need
    meaning: str
    mend: str


PROTECTIONS: Final = (
    Protection(
        "seccomp",
        Need.ALWAYS,
        "takes system calls from guests",
        "Use a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64.",
    ),
    Protection(
        "no_new_privs",
        Need.ALWAYS,
        "keeps a job's processes from gaining privileges",
        "Use Linux 3.5 or later.",
    ),
    Protection(
        "pidfd",
        Need.ALWAYS,
        "kills a job at its deadline without mistake",
        "Use Linux 5.3 or later; in a container, allow pidfd_open.",
    ),
    Protection(
        "memfd",
        Need.ALWAYS,
        "seals what processes of a job share, so that none can cut it short",
        "Use Linux 3.17 or later; in a container, allow memfd_create.",
    ),
    Protection(
        "landlock",
        Need.STRICT,
        "denies every file a second time",
        "Boot with landlock in lsm= (Linux 5.13 or later).",
    ),
    Protection(
        "namespaces",
        Need.STRICT,
        "hides the network and other processes, which are denied once already",
        "sysctl user.max_user_namespaces=15000, on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0; in a "
        "container, allow unshare in its profile.",
    ),
    Protection(
        "cgroup",
        Need.STOOD_IN,
        "accounts for all processes of a job together; without it resource limits and niceness hold each one",
        "Use cgroup v2, and run under systemd with Delegate=yes.",
    ),
)


def survey(features: HostFeatures, *, namespaces: bool) -> frozenset[str]:
    """The names of the protections that this host has, by `lockdown.probe()` and `try_namespaces()`."""
    found = {
        "seccomp": features.seccomp,
        "no_new_privs": ctypes.CDLL(None).prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0,
        "pidfd": features.pidfd,
        "memfd": _seals(),
        "landlock": features.landlock_abi > 0,
        "namespaces": namespaces,
        "cgroup": features.cgroup2_delegated,
    }
    return frozenset(name for name, there in found.items() if there)


def refusal(level: Level, present: Set[str], accepted: Set[str]) -> SandboxError | None:
    """Why a host with the protections `present` runs no job of `level`, or None.

    `accepted` names what the configuration lets be absent at `high` and `quantum`. It counts for nothing else: what is
    needed always cannot be accepted away.
    """
    for protection in PROTECTIONS:
        if protection.name in present or protection.need is Need.STOOD_IN:
            continue
        if protection.need is Need.STRICT and (not level.locked or protection.name in accepted):
            continue
        instead = f' Or accept it: [sandbox] accept_missing = ["{protection.name}"].'
        return SandboxError(
            PROTECTION_MISSING,
            f"This host lacks {protection.name}, which a job at level {level} needs: it {protection.meaning}.",
            field=protection.name,
            hint=protection.mend + (instead if protection.need is Need.STRICT else ""),
        )
    return None


def try_namespaces() -> bool:
    """Whether a process of this account can have namespaces of its own: one is started that tries, and ends."""
    try:
        tried = subprocess.run(  # noqa: S603 - this interpreter, and code that stands in this file
            [sys.executable, "-I", "-c", _TRY_NAMESPACES],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRIAL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _seals() -> bool:
    """Whether a memory file can be kept from ever changing its size."""
    try:
        file = os.memfd_create("ringfence-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return False
    try:
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
