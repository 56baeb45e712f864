"""Ask the compiled policy engine and cedarpy the same random questions, and fail on the first that they answer apart.

    .venv/bin/python -m tools.fuzz_policies [--requests N] [--seed N]

The first difference is printed with its seed; exit status 1.
"""

from __future__ import annotations

import argparse
import random
import sys

from ringfence.policies.bundle import Bundle
from ringfence.policies.compiled.decider import CompiledDecider
from ringfence.policies.compiled.programs import Program
from ringfence.policies.folder import open_bundled
from tests.policies.differential.cedar_worlds import world
from tests.policies.differential.query_worlds import query_world, same

EACH = 24
"""Requests that each random policy set is asked about."""
TYPED_EVERY = 4
"""One world in so many is a bundle of Ringfence; the others are of any Cedar."""


def main() -> int:
    """Asks until so many requests were answered alike."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=120_000, help="requests to compare (%(default)s)")
    parser.add_argument("--seed", type=int, help="where to begin (default: anywhere)")
    arguments = parser.parse_args()
    first = random.SystemRandom().randrange(2**40) if arguments.seed is None else arguments.seed
    default = open_bundled("default")
    asked = allowed = failed = 0
    seed = first
    while asked < arguments.requests:
        pairs = _typed(seed, default) if seed % TYPED_EVERY == 0 else _any(seed)
        for difference, permitted, error in pairs:
            if difference:
                print(f"seed {seed}: {difference}")
                return 1
            asked, allowed, failed = asked + 1, allowed + permitted, failed + error
        seed += 1
    print(
        f"policies: {asked:,} requests answered alike, {allowed:,} allowed, {failed:,} with errors; seeds from {first}"
    )
    return 0


def _any(seed: int) -> list[tuple[str, bool, bool]]:
    found = world(seed, EACH)
    program = Program(found.policies)
    pairs = []
    for request, expected in zip(found.requests, found.expected, strict=True):
        got = program.decide(request)
        difference = "" if got == expected else f"{got} is not {expected} for {request} by\n{found.text}"
        pairs.append((difference, expected.allowed, bool(expected.errors)))
    return pairs


def _typed(seed: int, default: Bundle) -> list[tuple[str, bool, bool]]:
    found = query_world(seed // TYPED_EVERY, default, EACH)
    decider = CompiledDecider(found.bundle)
    pairs = []
    for query, expected in zip(found.queries, found.expected, strict=True):
        got = decider.decide(query)
        difference = "" if same(got, expected) else f"{got} is not {expected} for {query}"
        pairs.append((difference, expected.allowed, bool(expected.errors)))
    return pairs


if __name__ == "__main__":
    sys.exit(main())
