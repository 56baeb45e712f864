"""Key sets, and how an issuer's keys turn over without anybody being able to flood the issuer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from ringfence.config import ConfigError
from ringfence.errors import RingfenceError
from ringfence.plugin.identity import jwks
from ringfence.plugin.identity.errors import FETCH_FAILED, IdentityError
from ringfence.plugin.identity.factors import keyring
from ringfence.plugin.identity.key_file import KeyFile
from ringfence.plugin.identity.keyring import Keyring
from ringfence.plugin.identity.settings import KeySetSettings
from tests.plugin.identity.certificates import NOW, p256
from tests.plugin.identity.tokens import Issuer, public_jwk, thumbprint

SETTINGS = KeySetSettings(url="https://issuer.example/keys", min_interval_s=30, max_interval_s=600, max_age_s=3600)


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def rsa_jwk(bits: int, **members: Any) -> dict[str, Any]:
    public = rsa.generate_private_key(65537, bits).public_key()
    return {**RSAAlgorithm.to_jwk(public, as_dict=True), "key_ops": ["verify"], **members}


def test_a_set_gives_its_usable_keys_by_their_ids() -> None:
    found = jwks.decode(
        key_set(
            public_jwk(p256(), kid="a"),
            public_jwk(ed25519.Ed25519PrivateKey.generate(), kid="b", alg="EdDSA"),
            rsa_jwk(2048, kid="c", alg="PS256"),
            rsa_jwk(1024, kid="weak"),
            public_jwk(p256(), kid="encrypts", use="enc"),
            public_jwk(p256(), kid="signs", key_ops=["sign"]),
            public_jwk(p256(), kid="confused", alg="RS256"),
            public_jwk(ec.generate_private_key(ec.SECP521R1()), kid="curve"),
            {"kty": "AKP", "kid": "unknown"},
            public_jwk(p256()),
        )
    )
    assert {name: (min(key.fits), key.algorithm) for name, key in found.items()} == {
        "a": ("ES256", ""),
        "b": ("EdDSA", "EdDSA"),
        "c": ("PS256", "PS256"),
    }


def test_a_thumbprint_is_that_of_the_rfc() -> None:
    # RFC 7638, section 3.1.
    entry = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJE"
        "CPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Q"
        "vzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6"
        "WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert jwks.thumbprint(entry) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    key = p256()
    assert jwks.thumbprint(public_jwk(key)) == thumbprint(key)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 5000,
        b'{"keys":[]}',
        b'{"keys":[1]}',
        key_set({"kty": "oct", "kid": "a", "k": "AAAA"}, public_jwk(p256(), kid="b")),
        key_set({**public_jwk(p256(), kid="a"), "d": "AAAA"}),
        key_set(public_jwk(p256(), kid="a"), public_jwk(p256(), kid="a")),
        key_set(*[public_jwk(p256(), kid=str(number)) for number in range(65)]),
        key_set({**public_jwk(p256(), kid="a"), "x": "AA"}),
        key_set({**public_jwk(p256(), kid="a"), "x": "*"}),
        b" " * (jwks.MAX_SET + 1),
    ],
)
def test_another_set_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError) as refused:
        jwks.decode(data)
    assert refused.value.code.name == "identity.keys_malformed"


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["keys", "kty", "crv", "x", "y", "n", "e", "kid", "alg", "use", "key_ops"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_no_set_raises_anything_else(value: object) -> None:
    for data in (json.dumps(value), json.dumps({"keys": [value]}), json.dumps({"keys": value})):
        with pytest.raises(RingfenceError):
            jwks.decode(data.encode())


class Turning:
    """A source whose set changes, fails or waits, as the test says; counts how often it is read."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.reads = 0
        self.fails = False
        self.open = asyncio.Event()
        self.open.set()

    async def load(self) -> bytes:
        self.reads += 1
        await self.open.wait()
        if self.fails:
            raise IdentityError(FETCH_FAILED, "The issuer is away.")
        return self.issuer.jwks()


async def refusal(keys: Keyring, name: str, now: int) -> str:
    with pytest.raises(IdentityError) as refused:
        await keys.key(name, now=now)
    return refused.value.code.name


async def test_keys_turn_over_and_an_unknown_id_causes_one_read_an_interval() -> None:
    source = Turning(Issuer(kid="one"))
    keys = Keyring(source, SETTINGS)
    await keys.key("one", now=NOW)
    for _ in range(5):
        assert await refusal(keys, "two", NOW + 10) == "identity.token_key_unknown"
    assert source.reads == 1
    source.issuer = Issuer(kid="two")
    assert (await keys.key("two", now=NOW + 30)).fits == {"ES256"}
    assert await refusal(keys, "one", NOW + 31) == "identity.token_key_unknown"
    assert source.reads == 2
    await keys.key("two", now=NOW + 629)
    assert source.reads == 2
    await keys.key("two", now=NOW + 630)
    assert source.reads == 3


async def test_callers_at_the_same_time_share_one_read() -> None:
    source = Turning(Issuer(kid="one"))
    source.open.clear()
    keys = Keyring(source, SETTINGS)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keys.key("one", now=NOW)) for _ in range(20)]
        await asyncio.sleep(0)
        source.open.set()
    assert len({id(task.result()) for task in tasks}) == 1
    assert source.reads == 1


async def test_a_caller_that_is_cancelled_leaves_the_read_to_the_next_one() -> None:
    source = Turning(Issuer(kid="one"))
    source.open.clear()
    keys = Keyring(source, SETTINGS)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(keys.key("one", now=NOW), 0.01)
    source.open.set()
    assert await keys.key("one", now=NOW)


async def test_keys_outlive_an_issuer_that_is_away_but_not_for_ever() -> None:
    source = Turning(Issuer(kid="one"))
    keys = Keyring(source, SETTINGS)
    await keys.key("one", now=NOW)
    source.fails = True
    await keys.key("one", now=NOW + 3599)
    assert await refusal(keys, "one", NOW + 3600) == "identity.keys_unavailable"
    source.fails = False
    assert await refusal(keys, "one", NOW + 3601) == "identity.keys_unavailable"
    assert await keys.key("one", now=NOW + 3630)
    # A clock that goes back does not make old keys look young.
    source.fails = True
    assert await refusal(keys, "one", NOW - 3600) == "identity.keys_unavailable"


async def test_a_file_is_a_source_and_one_that_is_absent_gives_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(Issuer(kid="one").jwks())
    keys = keyring(KeySetSettings(file=path))
    assert await keys.key("one", now=NOW)
    with pytest.raises(ConfigError):
        await KeyFile(tmp_path / "absent").load()
    assert await refusal(keyring(KeySetSettings(file=tmp_path / "absent")), "one", NOW) == "identity.keys_unavailable"


@pytest.mark.parametrize(
    "settings",
    [
        KeySetSettings(),
        KeySetSettings(file=Path("a"), url="https://b/"),
        KeySetSettings(url="http://issuer.example/keys"),
        KeySetSettings(url="https://user@issuer.example/"),
        KeySetSettings(url="file:///keys"),
    ],
)
def test_keys_come_from_one_place_that_may_be_asked(settings: KeySetSettings) -> None:
    with pytest.raises(IdentityError) as refused:
        keyring(settings)
    assert refused.value.code.name == "identity.settings_invalid"
