"""`ringfence policy sign`: vouch for a bundle."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from ringfence.terminal import print_json, printable

SUMMARY: Final = "sign a bundle's folder: write its bundle.sig"
DESCRIPTION: Final = (
    "Check a bundle and sign it with the composite key of a policy signer, into bundle.sig beside its manifest. The "
    "signature covers every file and every bundle that it extends. Make a key with `ringfence trust generate`, and pin "
    "its public half where the bundle is loaded: `ringfence trust add policy-signer`."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the bundle's folder")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the signer's private key, NAME.key")


def run(arguments: argparse.Namespace) -> int:
    """Signs; raises `PolicyError` for a bundle that does not load or whose cases fail."""
    from ringfence.policies.cases import run_cases
    from ringfence.policies.errors import CASES_FAIL, PolicyError
    from ringfence.policies.folder import load_bundle, open_bundled, read_files
    from ringfence.policies.signature import FILE, sign
    from ringfence.trust.files import replace
    from ringfence.trust.keys import load_private

    bundle = load_bundle(arguments.folder)
    failed = [result.failure for result in run_cases(bundle) if result.failure]
    if failed:
        raise PolicyError(
            CASES_FAIL,
            f"A bundle whose cases fail is not signed: {failed[0]}.",
            field=str(arguments.folder),
            hint="`ringfence policy test` shows all of them.",
        )
    key = load_private(arguments.key)
    replace(arguments.folder / FILE, sign(read_files(arguments.folder), open_bundled, key, int(time.time())))
    (arguments.folder / FILE).chmod(0o644)
    said = {"file": str(arguments.folder / FILE), "key_id": key.key_id, "digest": bundle.digest}
    if arguments.json:
        print_json(said)
    else:
        sys.stdout.write(printable(f"signed {bundle.name} {bundle.version} ({bundle.digest})") + "\n")
        sys.stdout.write(printable(f"by     {key.key_id}, in {said['file']}") + "\n")
    return 0
