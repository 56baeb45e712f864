"""Vouch for a guest's module with your own key, so that policies which ask for a signer let it run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Final

MAX_MODULE: Final = 64 * 1024 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence gateway endorse`."""
    parser.description = (
        "Writes a signed statement that you vouch for MODULE, by its SHA-256. Your key must be pinned at the gateway "
        "as a client's, in the group of module signers; policies read the name of your pin in context.module_signers."
    )
    parser.add_argument("module", metavar="MODULE", type=Path, help="the module (.wasm)")
    parser.add_argument("--days", metavar="N", type=int, default=90, help="for how long, up to 366 (%(default)s)")
    parser.add_argument("--key", metavar="FILE", type=Path, required=True, help="your private key, NAME.key")
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, required=True, help="the gateway's folder of endorsements"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the statement and prints where it is."""
    import secrets

    from ringfence.config.files import read_bounded
    from ringfence.crypto import digest
    from ringfence.errors import BAD_ARGUMENT, UsageError
    from ringfence.plugin.endorsing import MAX_LIFETIME_S, SUFFIX, endorse
    from ringfence.terminal import print_json, printable
    from ringfence.trust import files, load_private

    if not 0 < arguments.days <= MAX_LIFETIME_S // 86_400:
        raise UsageError(
            BAD_ARGUMENT, f"{arguments.days} is not 1 to 366 days.", field="--days", hint="Leave it out for 90 days."
        )
    module = digest(read_bounded(arguments.module, MAX_MODULE)).hex()
    now, lifetime_s = int(time.time()), arguments.days * 86_400
    data = endorse(load_private(arguments.key), module, now=now, lifetime_s=lifetime_s)
    path = arguments.folder / f"{module[:16]}-{secrets.token_hex(8)}{SUFFIX}"
    try:
        files.write_new(path, data, 0o644)
    except OSError as error:
        raise UsageError(
            BAD_ARGUMENT,
            f"{path} cannot be written: {error.strerror}.",
            field="--folder",
            hint="Make the folder first.",
        ) from error
    if arguments.json:
        print_json({"endorsement": str(path), "module": module, "expires_at": now + lifetime_s})
    else:
        print(printable(f"vouched for {module} for {arguments.days} days: {path}"))
    return 0
