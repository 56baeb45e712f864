"""Signing in against a real provider over HTTP: the way in, the way out, and everything that may go wrong between."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from ringfence.plugin.identity.errors import IdentityError
from ringfence.plugin.identity.port import Proven
from ringfence.plugin.signin import cookies
from ringfence.plugin.signin.app import SignIn
from ringfence.plugin.signin.assembly import open_sign_in
from ringfence.plugin.signin.settings import SignInSettings
from tests.plugin.identity.certificates import NOW
from tests.plugin.identity.servers import serving
from tests.plugin.identity.tokens import Issuer
from tests.plugin.signin.provider import CLIENT, ORIGIN, SECRET, Answered, Browser, Provider


class Sessions:
    """Browser sessions in a dictionary."""

    def __init__(self) -> None:
        self.live: dict[str, Proven] = {}
        self._numbers = itertools.count(1)

    async def open(self, proven: Proven, factors: tuple[tuple[str, int], ...]) -> str:
        assert factors == (("oidc", proven.proven_until),)
        cookie = f"session-{next(self._numbers)}"
        self.live[cookie] = proven
        return cookie

    async def end(self, cookie: str) -> None:
        self.live.pop(cookie, None)


class World:
    """A provider, a gateway and the clock between them."""

    def __init__(self, provider: Provider, folder: Path) -> None:
        self.provider, self.sessions, self.now = provider, Sessions(), NOW
        secret = folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        self.settings = SignInSettings(
            provider.url,
            ORIGIN,
            CLIENT,
            client_secret=secret,
            scopes=("openid", "profile"),
            groups_claim="groups",
            attribute_claims={"department": "dept"},
        )

    def app(self, **changes: Any) -> SignIn:
        settings = msgspec.structs.replace(self.settings, **changes)
        return open_sign_in(
            settings, self.sessions, key=bytes(32), clock=lambda: self.now, randomness=secrets.token_bytes
        )

    def browser(self, **changes: Any) -> Browser:
        return Browser(self.app(**changes))

    async def to_the_provider(self, browser: Browser, return_to: str = "/console") -> str:
        begun = await browser("GET", f"/.ringfence/signin?return_to={return_to}")
        assert begun.status == 303, begun.body
        async with httpx.AsyncClient() as client:
            return str((await client.get(begun["location"])).headers["location"])

    async def sign_in(self, browser: Browser, change: Callable[[str], str] = lambda url: url) -> Answered:
        back = await self.to_the_provider(browser)
        assert back.startswith(f"{ORIGIN}/.ringfence/callback?")
        return await browser("GET", change(back))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    provider = Provider()
    with serving(provider) as url:
        provider.url = url
        yield World(provider, tmp_path)


async def test_a_person_signs_in_and_out(world: World) -> None:
    browser = world.browser()
    world.provider.claims = {"groups": ["staff"], "dept": "physics"}
    answer = await world.sign_in(browser)
    assert (answer.status, answer["location"], answer["cache-control"]) == (303, "/console", "no-store")
    assert world.sessions.live == {
        "session-1": Proven(
            "oidc", f"{world.provider.url}#alice", False, NOW + 3600, ("staff",), ("department=physics",)
        )
    }
    assert set(browser.cookies) == {cookies.SESSION, cookies.FORGERY}
    flags = {line.partition("=")[0]: line for line in browser.set_cookies if "Max-Age=0" not in line}
    assert "HttpOnly" in flags[cookies.SESSION]
    assert "SameSite=Lax" in flags[cookies.SESSION]
    assert "HttpOnly" not in flags[cookies.FORGERY]
    assert "SameSite=Strict" in flags[cookies.FORGERY]

    token = browser.cookies[cookies.FORGERY]
    left = await browser("POST", "/.ringfence/logout", ("origin", ORIGIN), ("x-csrf-token", token))
    assert left.status == 303
    assert left["location"].startswith(f"{world.provider.url}/end?client_id=the+gateway&post_logout_redirect_uri=")
    assert world.sessions.live == {}
    assert browser.cookies == {}


async def test_a_form_can_log_out_too_and_a_provider_that_is_away_does_not_hinder_it(world: World) -> None:
    browser = world.browser()
    await world.sign_in(browser)
    world.provider.url = "gone"
    world.now += 5 * 3600
    form = f"csrf={browser.cookies[cookies.FORGERY]}".replace("=", "%3D").replace("csrf%3D", "csrf=").encode()
    kind = ("content-type", "application/x-www-form-urlencoded")
    left = await browser("POST", "/.ringfence/logout", ("origin", ORIGIN), kind, body=(form[:5], form[5:]))
    assert (left.status, left["location"]) == (303, "/")
    assert world.sessions.live == {}


async def test_a_planted_session_is_ended_by_signing_in(world: World) -> None:
    browser = world.browser()
    world.sessions.live["planted"] = Proven("oidc", "mallory", False, NOW)
    browser.cookies[cookies.SESSION] = "planted"
    await world.sign_in(browser)
    assert browser.cookies[cookies.SESSION] == "session-1"
    assert list(world.sessions.live) == ["session-1"]


async def test_an_answer_belongs_to_the_browser_that_began(world: World) -> None:
    victim, attacker = world.browser(), world.browser()
    back = await world.to_the_provider(attacker)
    # Login forgery: the attacker's answer in the victim's browser, which has begun nothing, or something else.
    assert (await victim("GET", back)).code == "signin.callback_foreign"
    await world.to_the_provider(victim)
    assert (await victim("GET", back)).code == "signin.callback_foreign"
    assert world.provider.exchanges == 0
    assert (await attacker("GET", back)).status == 303


async def test_an_answer_counts_once_and_not_for_ever(world: World) -> None:
    browser = world.browser()
    back = await world.to_the_provider(browser)
    pending = browser.cookies[cookies.PENDING]
    assert (await browser("GET", back)).status == 303
    browser.cookies[cookies.PENDING] = pending
    assert (await browser("GET", back)).code == "signin.provider_refused"
    back = await world.to_the_provider(browser)
    world.now += 600
    assert (await browser("GET", back)).code == "signin.callback_expired"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda url: url.replace("state=", "state=x"), "signin.callback_foreign"),
        (lambda url: url + "&state=x", "signin.callback_malformed"),
        (lambda url: url + "&code=x", "signin.callback_malformed"),
        (lambda url: url.replace("code=", "cod="), "signin.callback_malformed"),
        (lambda url: url.replace("code=", "code=x"), "signin.provider_refused"),
        (lambda url: url.replace("iss=http", "iss=https"), "signin.callback_foreign"),
        (lambda url: url.partition("&iss=")[0], "signin.callback_foreign"),
        (lambda url: url + "&error=access_denied", "signin.provider_refused"),
        (lambda url: url + "&a=%ff", "signin.callback_malformed"),
        (lambda url: url + "&a=" + "a" * 8192, "signin.callback_malformed"),
        (lambda url: url + "&a=b" * 40, "signin.callback_malformed"),
    ],
)
async def test_another_answer_is_refused(world: World, change: Callable[[str], str], code: str) -> None:
    answer = await world.sign_in(world.browser(), change)
    assert answer.code == code
    assert answer["content-type"] == "application/problem+json"
    assert world.sessions.live == {}


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"nonce": "another"}, "signin.callback_foreign"),
        ({"nonce": None}, "signin.callback_foreign"),
        ({"aud": "another"}, "identity.token_audience"),
        ({"aud": [CLIENT, "another"]}, "signin.callback_foreign"),
        ({"azp": "another"}, "signin.callback_foreign"),
        ({"iss": "https://another.example"}, "identity.token_issuer"),
        ({"exp": NOW - 10}, "identity.token_time"),
        ({"sub": None}, "identity.evidence_malformed"),
    ],
)
async def test_another_identity_token_is_refused(world: World, claims: dict[str, Any], code: str) -> None:
    world.provider.claims = claims
    assert (await world.sign_in(world.browser())).code == code
    assert world.sessions.live == {}


async def test_several_audiences_need_this_client_as_the_authorised_one(world: World) -> None:
    world.provider.claims = {"aud": [CLIENT, "another"], "azp": CLIENT}
    assert (await world.sign_in(world.browser())).status == 303


async def test_an_access_token_or_a_strangers_key_does_not_sign_in(world: World) -> None:
    world.provider.headers = {"typ": "at+jwt"}
    assert (await world.sign_in(world.browser())).code == "identity.token_type"
    world.provider.headers = {"typ": "JWT", "kid": "other"}
    assert (await world.sign_in(world.browser())).code == "identity.token_key_unknown"


async def test_the_providers_keys_turn_over(world: World) -> None:
    app = world.app()
    assert (await world.sign_in(Browser(app))).status == 303
    world.provider.issuer = Issuer(kid="two")
    # Within half a minute of the last look at its keys they are not asked for again, whatever a token says.
    world.now += 10
    assert (await world.sign_in(Browser(app))).code == "identity.token_key_unknown"
    world.now += 20
    assert (await world.sign_in(Browser(app))).status == 303


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://another.example"},
        {"authorization_endpoint": "http://another.example/authorize"},
        {"token_endpoint": "file:///etc/passwd"},
        {"end_session_endpoint": "javascript:alert(1)"},
        {"code_challenge_methods_supported": ["plain"]},
        {"response_types_supported": ["token"]},
        {"jwks_uri": None},
    ],
)
async def test_another_provider_is_not_used(world: World, document: dict[str, Any]) -> None:
    world.provider.document = document
    assert (await world.browser()("GET", "/.ringfence/signin")).code == "signin.provider_unfit"


async def test_a_provider_that_goes_away_is_remembered_for_a_while(world: World) -> None:
    browser = world.browser()
    assert (await browser("GET", "/.ringfence/signin")).status == 303
    world.provider.document = {"issuer": "broken"}
    world.now += 3600
    assert (await browser("GET", "/.ringfence/signin")).status == 303
    world.now += 3 * 3600
    assert (await browser("GET", "/.ringfence/signin")).code == "signin.provider_unfit"


@pytest.mark.parametrize(
    "return_to",
    ["https://evil.example/", "//evil.example", "/%5Cevil.example", "/%0d%0aset-cookie:a=b", "evil", "/" + "a" * 1024],
)
async def test_nobody_is_sent_elsewhere_afterwards(world: World, return_to: str) -> None:
    answer = await world.browser()("GET", f"/.ringfence/signin?return_to={return_to}")
    assert answer.code == "signin.return_unsafe"


async def test_other_paths_methods_and_hosts_are_refused(world: World) -> None:
    browser = world.browser()
    assert (await browser("GET", "/.ringfence/other")).code == "gateway.not_found"
    assert (await browser("POST", "/.ringfence/signin")).code == "gateway.method_not_allowed"
    assert (await browser("GET", "/.ringfence/logout")).code == "gateway.method_not_allowed"
    assert (await browser("GET", "/.ringfence/signin", host="evil.example")).code == "gateway.headers_malformed"
    forged = [("origin", ORIGIN), ("sec-fetch-site", "cross-site")]
    assert (await browser("POST", "/.ringfence/logout", *forged)).code == "signin.request_forged"
    large = await browser("POST", "/.ringfence/logout", ("origin", ORIGIN), body=(b"a" * 4097,))
    assert large.code == "gateway.body_too_large"


async def test_a_provider_without_a_logout_page_and_a_redirect_with_a_query(world: World) -> None:
    world.provider.document = {
        "end_session_endpoint": "",
        "authorization_endpoint": f"{world.provider.url}/authorize?a=b",
    }
    browser = world.browser()
    assert (await world.sign_in(browser)).status == 303
    token = ("x-csrf-token", browser.cookies[cookies.FORGERY])
    assert (await browser("POST", "/.ringfence/logout", ("origin", ORIGIN), token))["location"] == "/"


async def test_a_token_endpoint_without_an_identity_token_signs_nobody_in(world: World) -> None:
    world.provider.token_body = b'{"access_token":"x"}'
    assert (await world.sign_in(world.browser())).code == "signin.provider_refused"


async def test_odd_requests_are_refused(world: World) -> None:
    browser = world.browser()
    assert (await browser("POST", "/.ringfence/logout", ("origin", ORIGIN), body=())).code == "gateway.body_cut_short"
    assert (await browser("GET", "/.ringfence/signin", ("x", "\u00e9"))).code == "gateway.headers_malformed"
    sent: list[Any] = []

    async def nothing(_: Any = None) -> Any:
        sent.append(_)

    await browser.app({"type": "lifespan"}, nothing, nothing)
    assert sent == []


async def test_no_more_sign_ins_are_under_way_than_allowed(world: World) -> None:
    app = world.app(concurrent=1)
    answers = await asyncio.gather(*[Browser(app)("GET", "/.ringfence/signin") for _ in range(3)])
    assert sorted(answer.status for answer in answers) == [303, 429, 429]


async def test_a_secret_that_others_can_read_is_not_used(world: World) -> None:
    assert world.settings.client_secret is not None
    world.settings.client_secret.chmod(0o640)
    with pytest.raises(IdentityError) as refused:
        world.app()
    assert refused.value.code.name == "identity.settings_invalid"
    assert world.app(client_secret=None)
