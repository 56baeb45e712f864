"""An additional share in the keys of a gateway's channel: taken where both sides have one, refused where it is due."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from ringfence.agent.api.grants import CHANNEL_PURPOSE, GRANT_KEY
from ringfence.agent.channels import Channels
from ringfence.agent.config import AgentConfig
from ringfence.config import ConfigError, load
from ringfence.crypto import COMPOSITE, CryptoError
from ringfence.crypto.handshake import NO_SHARES, Initiator, Shares
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
HOST, GATEWAY = KeyPair(*COMPOSITE.generate()), KeyPair(*COMPOSITE.generate())
TRUST = TrustList((Pin("front", Role.GATEWAY, GATEWAY.public, NOW),))


def greet(shares: Shares) -> Initiator:
    return Initiator.start(GATEWAY, HOST.public, CHANNEL_PURPOSE, now=NOW, random=secrets.token_bytes, shares=shares)


@pytest.mark.parametrize("offered", [NO_SHARES, Shares.named(["BIKE-L1"], required=True)])
def test_a_channel_has_the_same_keys_on_both_sides(offered: Shares) -> None:
    channels = Channels(HOST, lambda: TRUST, secrets.token_bytes, Shares.named(["BIKE-L1"], required=False))
    initiator = greet(offered)
    established = initiator.finish(channels.open(initiator.message, now=NOW))
    assert channels.find(established.name, now=NOW).grant_key == established.key(GRANT_KEY)


def test_a_share_that_must_be_there_and_is_not_opens_no_channel() -> None:
    channels = Channels(HOST, lambda: TRUST, secrets.token_bytes, Shares.named(["BIKE-L3"], required=True))
    for offered in (NO_SHARES, Shares.named(["BIKE-L1"], required=False)):
        with pytest.raises(CryptoError, match=r"handshake\.share_missing"):
            channels.open(greet(offered).message, now=NOW)


def configured(folder: Path, line: str) -> AgentConfig:
    path = folder / "agent.toml"
    path.write_text(f'component = "agent"\nsocket = "s"\nstate = "st"\nkey = "k"\ntrust = "t"\n{line}\n')
    return load(path, AgentConfig)


def test_the_configuration_names_additional_shares_and_nothing_else(tmp_path: Path) -> None:
    config = configured(tmp_path, 'additional_shares = ["BIKE-L3", "BIKE-L1"]\nadditional_share_required = true')
    shares = Shares.named(config.additional_shares, required=config.additional_share_required)
    assert ([one.name for one in shares.kems], shares.required) == (["BIKE-L3", "BIKE-L1"], True)
    for wrong in ('["X-Wing"]', '["ML-KEM-768"]', '"BIKE-L1"'):
        with pytest.raises(ConfigError, match="additional_shares"):
            configured(tmp_path, f"additional_shares = {wrong}")
