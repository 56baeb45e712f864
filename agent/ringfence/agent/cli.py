"""Run the agent of this host: it attests the host and runs the jobs that its gateways grant."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence agent`."""
    parser.description = (
        "Serves gateways on a Unix socket until it is stopped with SIGTERM or Ctrl-C. "
        "`ringfence config example agent` prints a configuration to start from."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the agent's configuration (TOML)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the agent."""
    from ringfence.agent import daemon
    from ringfence.agent.config import AgentConfig
    from ringfence.config import load

    daemon.run(load(arguments.config, AgentConfig))
    return 0
