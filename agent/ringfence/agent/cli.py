"""Run the agent of this host: it attests the host and runs the jobs that its gateways grant."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringfence.agent.config import AgentConfig


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence agent`."""
    parser.description = (
        "Serves gateways on a Unix socket until it is stopped with SIGTERM or Ctrl-C. "
        "`ringfence config example agent` prints a configuration to start from."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the agent's configuration (TOML)")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--active",
        action="store_true",
        help="start nothing; ask the running agent which jobs it runs now, since when, and what they have used",
    )
    asked.add_argument(
        "--show-host",
        action="store_true",
        help="start nothing; print the [host] table for the gateway's configuration: this agent's key id, and the "
        "attestation key and PCR values that the TPM shows now. Run it on a boot that you trust",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the agent, shows its host, or asks it what it runs."""
    from ringfence.agent.config import AgentConfig
    from ringfence.config import load

    config = load(arguments.config, AgentConfig)
    if arguments.show_host:
        _show(config, as_json=arguments.json)
        return 0
    if arguments.active:
        _list_active(config, as_json=arguments.json)
        return 0
    from ringfence.agent import daemon

    daemon.run(config)
    return 0


def _show(config: AgentConfig, *, as_json: bool) -> None:
    import asyncio

    from ringfence.agent.attesting import observe
    from ringfence.terminal import print_json, printable

    host = asyncio.run(observe(config))
    if as_json:
        table: dict[str, object] = {"socket": str(host.socket), "agent": host.agent}
        table["attestation_keys"] = list(host.attestation_keys)
        table["pcrs"] = {str(index): [value] for index, value in host.pcrs}
        print_json({"host": table})
    else:
        sys.stdout.write(host.toml())
    if host.unattested:
        note = f"This host is not attested, because {host.unattested}; the shipped policies refuse such a host."
        sys.stderr.write(f"ringfence agent: {printable(note)}\n")


def _list_active(config: AgentConfig, *, as_json: bool) -> None:
    import asyncio
    from datetime import UTC, datetime

    import msgspec

    from ringfence.agent.api.errors import AGENT_UNAVAILABLE, ChannelError
    from ringfence.agent.api.jobs import ActiveJob
    from ringfence.agent.api.remote import RemoteAgent
    from ringfence.terminal import print_json, print_table

    async def ask() -> tuple[ActiveJob, ...]:
        agent = RemoteAgent(config.socket)
        try:
            return await agent.active()
        except ChannelError as error:
            if error.code is not AGENT_UNAVAILABLE:
                raise
            raise ChannelError(
                AGENT_UNAVAILABLE,
                f"No agent answers on {config.socket}.",
                hint="Start it with `ringfence agent`, and ask as the account that it runs as.",
            ) from error
        finally:
            await agent.close()

    jobs = asyncio.run(ask())
    if as_json:
        print_json({"jobs": msgspec.to_builtins(jobs)})
        return
    rows = [("JOB", "SINCE", "LEVEL", "UNITS", "CPU", "WALL", "MEMORY")]
    for job in jobs:
        since = f"{datetime.fromtimestamp(job.since, UTC):%Y-%m-%dT%H:%M:%SZ}"
        cpu, wall = f"{job.usage.cpu_ms:.0f} ms", f"{job.usage.wall_ms:.0f} of {job.limits.deadline_ms} ms"
        memory = f"{job.usage.peak_memory_bytes} of {job.limits.memory_bytes}"
        rows.append((job.job_id, since, job.level.value, str(job.limits.compute_units), cpu, wall, memory))
    print_table(rows)
