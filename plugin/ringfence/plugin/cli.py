"""Run the built-in gateway: it decides who may use the host behind it, and forwards what it allows."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ringfence.errors import BAD_ARGUMENT, UsageError

ACTIONS: Final[Mapping[str, str]] = {
    "approve": "ringfence.plugin.identity.approve_cli",
    "endorse": "ringfence.plugin.endorse_command",
    "explain": "ringfence.plugin.explain_command",
    "revoke": "ringfence.plugin.sessions.revoke_cli",
    "sessions": "ringfence.plugin.sessions.sessions_cli",
    "watch": "ringfence.plugin.threats.watch_command",
}
"""What can be asked of a gateway that runs or ran: each name's module has `configure` and `run`."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence gateway`."""
    parser.description = (
        "Serves HTTP on a Unix socket or a loopback address until it is stopped with SIGTERM or Ctrl-C. "
        "`ringfence config example gateway` prints a configuration to start from. With an action it runs no gateway, "
        "but shows or changes what one does."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the gateway's configuration (TOML)")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    for name, module in ACTIONS.items():
        action = importlib.import_module(module)
        summary = (action.__doc__ or "").partition("\n")[0].rstrip(".")
        action.configure(actions.add_parser(name, help=summary[:1].lower() + summary[1:]))


def run(arguments: argparse.Namespace) -> int:
    """Runs the gateway, or one action."""
    if arguments.action is not None:
        status: int = importlib.import_module(ACTIONS[arguments.action]).run(arguments)
        return status
    if arguments.config is None:
        raise UsageError(
            BAD_ARGUMENT,
            "A gateway needs its configuration.",
            field="--config",
            hint="Give --config FILE, or an action; see `ringfence gateway --help`.",
        )
    from ringfence.config import load
    from ringfence.plugin import daemon
    from ringfence.plugin.config import GatewayConfig

    daemon.run(load(arguments.config, GatewayConfig))
    return 0
