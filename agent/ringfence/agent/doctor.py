"""Say what this host has and lacks for Ringfence's work, and how to mend it."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringfence.agent.diagnosis import Finding


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit status 0: everything that `ringfence demo` needs is there; 1: something that it needs is lacking or "
        "broken. Nothing on the host is changed."
    )
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="the folder whose disk is measured (default: the temporary folder, %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    from ringfence.agent.diagnosis import healthy
    from ringfence.terminal import print_json

    findings = examine(arguments.state)
    if arguments.json:
        checks = [
            {
                "area": finding.area,
                "name": finding.name,
                "status": finding.status.value,
                "required": finding.required,
                "found": finding.found,
                "meaning": finding.meaning,
                "mend": finding.mend,
            }
            for finding in findings
        ]
        print_json({"ok": healthy(findings), "checks": checks})
    else:
        _print(findings)
    return 0 if healthy(findings) else 1


def examine(state: Path) -> list[Finding]:
    """Every finding about this host and this installation; `state` is the folder whose disk is measured."""
    import resource
    import sys

    from ringfence.agent import diagnosis
    from ringfence.agent.confine.protections import survey, try_namespaces
    from ringfence.agent.sandbox.lockdown import probe

    features = probe()
    dev, sys_ = Path("/dev"), Path("/sys")
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return [
        diagnosis.interpreter(sys.version_info[:3]),
        *(diagnosis.library(wanted) for wanted in diagnosis.LIBRARIES),
        diagnosis.post_quantum(),
        *diagnosis.protections(survey(features, namespaces=try_namespaces()), features),
        diagnosis.secret_memory(features),
        diagnosis.locked_memory(soft_limit),
        diagnosis.disk(state),
        diagnosis.tpm(dev),
        diagnosis.software_tpm(None),
        *diagnosis.gpu(dev, sys_),
    ]


def _print(findings: Sequence[Finding]) -> None:
    from ringfence.agent.diagnosis import Status, healthy
    from ringfence.terminal import print_table, printable

    rows = [("STATUS", "NEED", "AREA", "CHECK", "FOUND")]
    for finding in findings:
        need = "required" if finding.required else "optional"
        rows.append((finding.status.value, need, finding.area, finding.name, finding.found))
    print_table(rows)
    for finding in findings:
        if finding.status is not Status.OK:
            print()
            print(printable(f"{finding.name} ({finding.status.value}): {finding.meaning}."))
            print(printable(f"  {finding.mend}"))
    print()
    if healthy(findings):
        print("Everything that `ringfence demo` needs is here.")
    else:
        print("Something that `ringfence demo` needs is missing; see the lines marked broken or lacking.")
