"""Run the built-in gateway: it decides who may use the host behind it, and forwards what it allows."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence gateway`."""
    parser.description = (
        "Serves HTTP on a Unix socket or a loopback address until it is stopped with SIGTERM or Ctrl-C. "
        "`ringfence config example gateway` prints a configuration to start from."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the gateway's configuration (TOML)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the gateway."""
    from ringfence.config import load
    from ringfence.plugin import daemon
    from ringfence.plugin.config import GatewayConfig

    daemon.run(load(arguments.config, GatewayConfig))
    return 0
