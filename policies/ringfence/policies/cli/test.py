"""`ringfence policy test`: the cases of a bundle, and what they exercise."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.policies.cli.source import add_bundle, open_bundle, own_policies, write_file
from ringfence.terminal import print_json, printable

SUMMARY: Final = "run a bundle's cases"
DESCRIPTION: Final = (
    "Run the cases in tests/*.toml of a bundle: the answer, and exactly which policies decide. Exit status 1 where a "
    "case fails, where there is none, or where less is covered than --least asks for."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_bundle(parser)
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML too")
    parser.add_argument(
        "--least", type=int, default=0, metavar="PERCENT", help="fail where fewer of the conditions are seen both ways"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the cases."""
    from ringfence.policies.analysis.coverage import measure
    from ringfence.policies.analysis.junit import junit
    from ringfence.policies.cases import run_cases

    if not 0 <= arguments.least <= 100:
        raise UsageError(BAD_ARGUMENT, "--least is 0 to 100.", field="--least", hint="Leave it out, or give 90.")
    bundle = open_bundle(arguments.bundle)
    results = run_cases(bundle)
    coverage = measure(bundle, own_policies(arguments.bundle))
    if arguments.junit is not None:
        write_file(arguments.junit, junit(bundle.name, results), "--junit")
    failed = [result for result in results if result.failure]
    covered = coverage.condition_ratio * 100 >= arguments.least
    ok = not failed and bool(results) and covered
    if arguments.json:
        print_json(
            {
                "ok": ok,
                "cases": len(results),
                "failed": [{"case": result.case.name, "failure": result.failure} for result in failed],
                "policy_coverage": coverage.policy_ratio,
                "condition_coverage": coverage.condition_ratio,
            }
        )
        return int(not ok)
    for result in failed:
        sys.stdout.write(f"failed  {printable(result.failure)}\n")
    sys.stdout.write(
        f"{len(results) - len(failed)} of {len(results)} cases hold; {coverage.policy_ratio:.0%} of its policies held "
        f"in one, {coverage.condition_ratio:.0%} of their conditions were seen true and false\n"
    )
    return int(not ok)
