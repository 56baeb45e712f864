"""The real Envoy with the example configuration: what every host must do."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.plugin.hosts.envoy_running import RunningEnvoy, running_envoy
from tests.plugin.hosts.host_scenarios import SCENARIOS, RunningHost


@pytest.fixture(scope="module")
def host() -> Iterator[RunningEnvoy]:
    # A Unix socket's path is short; pytest's own folders are not.
    with tempfile.TemporaryDirectory(prefix="rf-envoy-") as folder, running_envoy(Path(folder)) as running:
        yield running


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_envoy(host: RunningEnvoy, scenario: Callable[[RunningHost], None]) -> None:
    scenario(host)
