"""`ringfence policy verify`: who vouches for a bundle."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ringfence.terminal import print_json, printable

SUMMARY: Final = "check a bundle's signature against the pinned policy signers"
DESCRIPTION: Final = (
    "Check that bundle.sig is a pinned policy signer's signature of exactly these files, as a gateway does before it "
    "loads them. No policy is parsed. Exit status 1 where it does not hold."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the bundle's folder")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--state", metavar="DIR", type=Path, help="the state folder that holds trust.toml")
    place.add_argument("--file", metavar="FILE", type=Path, help="the trust list itself")


def run(arguments: argparse.Namespace) -> int:
    """Verifies; raises `PolicyError` for a signature that does not hold."""
    from ringfence.policies.folder import open_bundled, read_files, read_signature
    from ringfence.policies.signature import verify_signature
    from ringfence.trust.store import FILE_NAME, load

    trust = load(arguments.file if arguments.file is not None else arguments.state / FILE_NAME)
    files, signature = read_files(arguments.folder), read_signature(arguments.folder)
    signer = verify_signature(files, signature, trust, int(time.time()), open_bundled)
    statement = signer.statement
    signed_at = f"{datetime.fromtimestamp(statement.signed_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if arguments.json:
        print_json(
            {
                "ok": True,
                "signer": signer.name,
                "key_id": statement.key_id,
                "name": statement.name,
                "version": statement.version,
                "digest": statement.digest,
                "signed_at": signed_at,
            }
        )
    else:
        said = f"{statement.name} {statement.version} ({statement.digest}) is signed by {signer.name}, {signed_at}"
        sys.stdout.write(printable(said) + "\n")
    return 0
