"""The gateway's configuration: its example holds, and a value out of its range is refused."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from ringfence.plugin.config import GatewayConfig, GatewayLimits


def example() -> dict[str, Any]:
    values = tomllib.loads(GatewayConfig.example)
    assert values.pop("component") == GatewayConfig.component
    return values


def convert(values: dict[str, Any]) -> GatewayConfig:
    return msgspec.convert(values, GatewayConfig, strict=True, dec_hook=lambda kind, value: kind(value))


def test_the_example_is_a_configuration_with_the_defaults() -> None:
    config = convert(example())
    assert config.policies == "default"
    assert config.limits == GatewayLimits()
    assert config.host.pcrs == {"0": ("0" * 64,)}


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("limits", "sessions", 0),
        ("limits", "session_lifetime_s", 86_401),
        ("limits", "attestation_lifetime_s", 9),
        ("limits", "body_bytes", -1),
        ("limits", "body_timeout_s", 0),
        ("limits", "job_timeout_s", float("inf")),
        ("limits", "job_timeout_s", float("nan")),
        ("limits", "remembered_nonces", 0),
        ("limits", "risk_ceiling", 0),
        ("limits", "sessions", "many"),
        ("limits", "session", 5),
        ("host", "agent", "rf1" + "A" * 42),
        ("host", "agent", "rf1" + "A" * 43 + "\n"),
        ("host", "attestation_keys", ["A" * 64]),
        ("host", "pcrs", {"0": ["00"]}),
        ("host", "sockets", "x"),
        ("", "listens", "x"),
        ("", "listen", 8440),
    ],
)
def test_what_cannot_be_meant_is_refused(table: str, key: str, value: object) -> None:
    values = example()
    (values[table] if table else values)[key] = value
    with pytest.raises(msgspec.ValidationError):
        convert(values)


@pytest.mark.parametrize("key", ["listen", "state", "key", "verifier_key", "trust", "host"])
def test_nothing_that_decides_has_a_default(key: str) -> None:
    values = example()
    del values[key]
    with pytest.raises(msgspec.ValidationError, match=key):
        convert(values)
