"""The gateway's configuration: its example holds, and a value out of its range is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.config import ConfigError, effective, parse
from ringfence.plugin.config import GatewayConfig, GatewayLimits

FOLDER = Path("/etc/ringfence")
AGENT = "rf1" + "A" * 43
ZEROS = "0" * 64


def read(old: str = "", new: str = "") -> GatewayConfig:
    """The example with one passage replaced."""
    assert old in GatewayConfig.example
    text = GatewayConfig.example.replace(old, new, 1)
    return parse(text.encode(), GatewayConfig, source="gateway.toml", folder=FOLDER)


def test_the_example_is_a_configuration_with_the_defaults() -> None:
    config = read()
    assert config.policies == "default"
    assert config.limits == GatewayLimits()
    assert config.host.pcrs == {"0": (ZEROS,)}
    assert config.host.references().pcrs == {0: frozenset({ZEROS})}
    assert config.host.references().agents == {config.host.agent: frozenset({ZEROS})}


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("sessions = 10000", "sessions = 0", "limits.sessions"),
        ("sessions = 10000", 'sessions = "many"', "limits.sessions"),
        ("sessions = 10000", "session = 10000", "limits.session"),
        ("session_lifetime_s = 900", "session_lifetime_s = 86401", "limits.session_lifetime_s"),
        ("attestation_lifetime_s = 300", "attestation_lifetime_s = 9", "limits.attestation_lifetime_s"),
        ("body_bytes = 67108864", "body_bytes = -1", "limits.body_bytes"),
        ("body_timeout_s = 30.0", "body_timeout_s = 0", "limits.body_timeout_s"),
        ("job_timeout_s = 60.0", "job_timeout_s = inf", "limits.job_timeout_s"),
        ("job_timeout_s = 60.0", "job_timeout_s = nan", "limits.job_timeout_s"),
        ("remembered_nonces = 1000000", "remembered_nonces = 0", "limits.remembered_nonces"),
        ("risk_ceiling = 90", "risk_ceiling = 0", "limits.risk_ceiling"),
        (AGENT, AGENT[:-1], "host.agent"),
        (AGENT, AGENT + "\\n", "host.agent"),
        (f'attestation_keys = ["{ZEROS}"]', f'attestation_keys = ["{"A" * 64}"]', "host.attestation_keys[0]"),
        (f'0 = ["{ZEROS}"]', '0 = ["00"]', "host.pcrs"),
        (f'0 = ["{ZEROS}"]', "0 = []", "host.pcrs"),
        (f'0 = ["{ZEROS}"]', f'24 = ["{ZEROS}"]', "host.pcrs"),
        (f'0 = ["{ZEROS}"]', f'PCR0 = ["{ZEROS}"]', "host.pcrs"),
        ('socket = "/run', 'sockets = "/run', "host.sockets"),
        ('socket = "/run', f'socket = "/{"r" * 100}', "host.socket"),
        ("listen = ", "listens = ", "listens"),
        ('listen = "unix:/run/ringfence/gateway.sock"', "listen = 8440", "listen"),
        ('policies = "default"', 'policies = "./\\u0000"', "policies"),
    ],
)
def test_what_cannot_be_meant_is_refused(old: str, new: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(old, new)
    assert caught.value.field == field


@pytest.mark.parametrize("key", ["listen", "state", "key", "verifier_key", "trust"])
def test_nothing_that_decides_has_a_default(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"\n{key} = ", "\n#")
    assert (caught.value.code.name, caught.value.field) == ("config.missing_key", key)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("unix:run/gateway.sock", "unix:/etc/ringfence/run/gateway.sock"),
        ("unix:/run/gateway.sock", "unix:/run/gateway.sock"),
        ("127.0.0.1:8440", "127.0.0.1:8440"),
        ("[::1]:8440", "[::1]:8440"),
    ],
)
def test_where_it_listens_is_resolved_and_shown_so(written: str, means: str) -> None:
    config = read("unix:/run/ringfence/gateway.sock", written)
    assert config.listen == means
    assert effective(config)["listen"] == means


@pytest.mark.parametrize(
    ("written", "says"),
    [
        *(
            ("", "expected unix:PATH, or"),
            ("unix:", "a string that is not empty"),
            ("8440", "does not appear to be an IP"),
        ),
        *((":8440", "does not appear to be an IP"), ("localhost:8440", "does not appear to be an IP")),
        *(
            ("127.0.0.1:", "expected unix:PATH"),
            ("127.0.0.1:65536", "expected unix:PATH"),
            ("127.0.0.1:-1", "expected"),
        ),
        *(("127.0.0.1:8_440", "expected unix:PATH"), ("0.0.0.0:8440", "is not a loopback address")),
        *(("[::]:8440", "is not a loopback address"), ("unix:" + "x" * 100, "a socket's path of at most 107 bytes")),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_refused(written: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("unix:/run/ringfence/gateway.sock", written)
    assert (caught.value.field, caught.value.line) == ("listen", 3)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("written", "means"),
    [("default", "default"), ("./policies", "/etc/ringfence/policies"), ("/srv/policies", "/srv/policies")],
)
def test_a_folder_of_policies_is_resolved(written: str, means: str) -> None:
    config = read('policies = "default"', f'policies = "{written}"')
    assert config.policies == means
    assert effective(config)["policies"] == means
