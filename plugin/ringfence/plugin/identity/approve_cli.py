"""Approve of a principal's break-glass access for a few hours, with your own key."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

MAX_HOURS = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence gateway approve`."""
    parser.description = (
        "Writes a signed statement that lets PRINCIPAL do what the policies allow with an approval. Your key must be "
        "pinned at the gateway as a client's, in the group of approvers; your own principal you cannot approve of."
    )
    parser.add_argument("principal", metavar="PRINCIPAL", help="whom you approve of")
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why, for those who read it later")
    parser.add_argument("--hours", metavar="N", type=float, default=1.0, help="for how long, up to 8 (default 1)")
    parser.add_argument("--key", metavar="FILE", type=Path, required=True, help="your private key, NAME.key")
    parser.add_argument("--folder", metavar="DIR", type=Path, required=True, help="the gateway's folder of approvals")


def run(arguments: argparse.Namespace) -> int:
    """Writes the statement and prints where it is."""
    import secrets

    from ringfence.errors import BAD_ARGUMENT, UsageError
    from ringfence.plugin.identity import approvals
    from ringfence.plugin.identity.approval_folder import SUFFIX
    from ringfence.terminal import print_json, printable
    from ringfence.trust import files, load_private

    if not 0 < arguments.hours <= MAX_HOURS:
        raise UsageError(
            BAD_ARGUMENT,
            f"{arguments.hours:g} is not more than 0 and up to {MAX_HOURS} hours.",
            field="--hours",
            hint="Leave it out for one hour.",
        )
    now = int(time.time())
    lifetime_s = int(arguments.hours * 3600)
    signer = load_private(arguments.key)
    data = approvals.make(
        signer, principal=arguments.principal, reason=arguments.reason, now=now, lifetime_s=lifetime_s
    )
    path = arguments.folder / f"{now}-{secrets.token_hex(8)}{SUFFIX}"
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
        print_json({"approval": str(path), "principal": arguments.principal, "expires_at": now + lifetime_s})
    else:
        print(printable(f"approved of {arguments.principal} for {arguments.hours:g} h: {path}"))
    return 0
