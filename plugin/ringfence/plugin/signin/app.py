"""Signing in and out, as an ASGI 3 application: browsers in, `flow` calls, redirects and cookies out.

    GET  /.ringfence/signin?return_to=/PATH   -> to the provider
    GET  /.ringfence/callback                 <- from the provider; a new session, and back to the path
    POST /.ringfence/logout                   -> ends the session here, and at the provider

Every refusal is a `Problem` in JSON. Whoever signs in gets a new cookie, and the session of the old one ends: a cookie
that an attacker planted before is worth nothing afterwards.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote

import msgspec

from ringfence.crypto.symmetric import hkdf_expand
from ringfence.errors import RingfenceError
from ringfence.plugin.api import PROBLEM, Problem
from ringfence.plugin.builtin.capacity import Slots
from ringfence.plugin.errors import (
    BODY_CUT_SHORT,
    BODY_TOO_LARGE,
    HEADERS_MALFORMED,
    METHOD_UNKNOWN,
    NOT_FOUND,
    GateError,
)
from ringfence.plugin.identity.errors import FETCH_FAILED, IdentityError
from ringfence.plugin.identity.fetching import Fetcher
from ringfence.plugin.signin import cookies, csrf, flow
from ringfence.plugin.signin.errors import CALLBACK_MALFORMED, PROVIDER_REFUSED, SignInError
from ringfence.plugin.signin.port import BrowserSessions
from ringfence.plugin.signin.provider import Provider
from ringfence.plugin.signin.settings import CALLBACK, LOG_OUT, SIGN_IN, SignInSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fields = list[tuple[str, str]]

MAX_QUERY: Final = 8192
MAX_FORM: Final = 4096
FORM_TIMEOUT_S: Final = 5.0
FORM_FIELD: Final = "csrf"
METHODS: Final = {SIGN_IN: "GET", CALLBACK: "GET", LOG_OUT: "POST"}
_HARDENING: Final = (
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
)


def forgery_key(key: bytes) -> bytes:
    """The key of the tokens against forged requests, out of the gateway's key for browsers (32 bytes each)."""
    return hkdf_expand(key, b"ringfence signin csrf", 32)


class SignIn:
    """Serves the three paths of one provider. `key` (32 secret bytes) is the same in every worker of a gateway."""

    def __init__(
        self,
        settings: SignInSettings,
        sessions: BrowserSessions,
        fetcher: Fetcher,
        *,
        key: bytes,
        secret: str,
        clock: Callable[[], int],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._fetcher = fetcher
        self._provider = Provider(settings, fetcher)
        self._pending_key = hkdf_expand(key, b"ringfence signin pending", 32)
        self._csrf_key = forgery_key(key)
        self._secret = secret
        self._clock = clock
        self._randomness = randomness
        self._slots = Slots(settings.concurrent)

    def protect(self, method: str, headers: Fields, *, submitted: str = "") -> None:
        """Whether a request to any path may change something: see `csrf.protect`. For whoever serves the pages."""
        csrf.protect(method, headers, key=self._csrf_key, origin=self._settings.origin, submitted=submitted)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, fields, body = await self._answer(scope, receive)
        except RingfenceError as error:
            status, fields, body = _problem(error)
        headers = [*fields, *_HARDENING, ("content-length", str(len(body)))]
        encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, Fields, bytes]:
        # As it was sent, before any decoding.
        raw = scope.get("raw_path")
        path = str(scope["path"]) if raw is None else bytes(raw).decode("latin-1")
        if path not in METHODS:
            raise GateError(NOT_FOUND, "There is nothing at this path.", field="path")
        if scope["method"] != METHODS[path]:
            raise GateError(METHOD_UNKNOWN, f"This path takes {METHODS[path]} only.", field="method")
        headers = _headers(scope)
        # Stops a page of another name that resolves to this gateway (DNS rebinding).
        if [value for name, value in headers if name == "host"] != [self._settings.origin.removeprefix("https://")]:
            raise GateError(HEADERS_MALFORMED, "This is not the host that the gateway is known by.", field="host")
        if path == SIGN_IN:
            return await self._begin(_parameters(scope))
        if path == CALLBACK:
            return await self._come_back(_parameters(scope), headers)
        return await self._log_out(headers, receive)

    async def _begin(self, parameters: Fields) -> tuple[int, Fields, bytes]:
        now = self._clock()
        return_to = [value for name, value in parameters if name == "return_to"]
        with self._slots.held():
            provider, _ = await self._provider.current(now=now)
        url, cookie = flow.begin(
            self._settings,
            provider,
            key=self._pending_key,
            random=self._randomness(flow.RANDOM_BYTES),
            return_to=return_to[0] if len(return_to) == 1 else "/",
            now=now,
        )
        pending = cookies.put(cookies.PENDING, cookie, max_age_s=self._settings.pending_s)
        return 303, [("location", url), pending], b""

    async def _come_back(self, parameters: Fields, headers: Fields) -> tuple[int, Fields, bytes]:
        now, settings = self._clock(), self._settings
        pending = flow.reopen(cookies.read(headers, cookies.PENDING), key=self._pending_key, now=now)
        # Held while another server is asked, and by nobody who has not begun here: strangers cannot take them all.
        with self._slots.held():
            provider, keyring = await self._provider.current(now=now)
            exchange = flow.come_back(settings, provider, pending, parameters)
            token = flow.identity_token(await self._exchange(provider.token, exchange), settings)
            key = await keyring.key(token.header.kid, now=now)
        proven = flow.finish(token, key, exchange, settings, now=now)
        old = cookies.read(headers, cookies.SESSION)
        if old:
            await self._sessions.end(old)
        session = await self._sessions.open(proven, ((proven.factor, proven.proven_until),))
        forgery = csrf.token(self._csrf_key, session, self._randomness(csrf.SALT_BYTES))
        fields = [
            ("location", pending.return_to),
            cookies.drop(cookies.PENDING),
            cookies.put(cookies.SESSION, session, max_age_s=settings.session_s),
            cookies.put(cookies.FORGERY, forgery, max_age_s=settings.session_s, same_site="Strict", script=True),
        ]
        return 303, fields, b""

    async def _exchange(self, url: str, exchange: flow.Exchange) -> bytes:
        headers = {"accept": "application/json"}
        if self._secret:
            # RFC 6749, section 2.3.1: both parts are form-encoded before they are joined.
            pair = f"{quote(self._settings.client_id, safe='')}:{quote(self._secret, safe='')}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        try:
            return await self._fetcher.fetch(
                url, headers=headers, form=exchange.form, most=flow.MAX_ANSWER, timeout_s=self._settings.timeout_s
            )
        except IdentityError as error:
            if error.code is not FETCH_FAILED:
                raise
            raise SignInError(
                PROVIDER_REFUSED,
                "The provider did not exchange the code.",
                field="code",
                hint="Begin to sign in again; if it stays so, an operator must look at the client's registration.",
            ) from error

    async def _log_out(self, headers: Fields, receive: Receive) -> tuple[int, Fields, bytes]:
        submitted = dict(await _form(headers, receive)).get(FORM_FIELD, "")
        self.protect("POST", headers, submitted=submitted)
        await self._sessions.end(cookies.read(headers, cookies.SESSION))
        gone = [cookies.drop(name) for name in (cookies.SESSION, cookies.FORGERY, cookies.PENDING)]
        try:
            with self._slots.held():
                provider, _ = await self._provider.current(now=self._clock())
            location = flow.log_out(self._settings, provider)
        except RingfenceError:
            location = "/"  # The session here is over, whether or not the provider can be asked.
        return 303, [("location", location), *gone], b""


def _headers(scope: Message) -> Fields:
    try:
        return [(name.decode("ascii").lower(), value.decode("ascii")) for name, value in scope["headers"]]
    except UnicodeDecodeError:
        raise GateError(HEADERS_MALFORMED, "A header field holds a byte that is not ASCII.", field="headers") from None


def _parameters(scope: Message) -> Fields:
    return _pairs(bytes(scope.get("query_string", b"")), MAX_QUERY)


def _pairs(data: bytes, most: int) -> Fields:
    try:
        if len(data) <= most:
            return parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=32, errors="strict")
    except ValueError:
        pass
    raise SignInError(CALLBACK_MALFORMED, "The query or form is malformed, or too long.", field="query")


async def _form(headers: Fields, receive: Receive) -> Fields:
    """The fields of a small form; none of a body of another kind, which is read and dropped."""
    try:
        async with asyncio.timeout(FORM_TIMEOUT_S):
            body = await _body(receive)
    except TimeoutError:
        raise GateError(BODY_CUT_SHORT, f"The form took longer than {FORM_TIMEOUT_S:g} s.", field="body") from None
    kind = [value.partition(";")[0].strip().lower() for name, value in headers if name == "content-type"]
    return _pairs(body, MAX_FORM) if kind == ["application/x-www-form-urlencoded"] else []


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GateError(BODY_CUT_SHORT, "The browser went away.", field="body")
        body += message.get("body", b"")
        more = bool(message.get("more_body", False))
        if len(body) > MAX_FORM:
            raise GateError(BODY_TOO_LARGE, f"The form has more than {MAX_FORM} bytes.", field="body")
    return body


def _problem(error: RingfenceError) -> tuple[int, Fields, bytes]:
    status = error.code.kind.http
    problem = Problem(code=error.code.name, message=error.message, status=status, field=error.field, hint=error.hint)
    return status, [("content-type", PROBLEM)], msgspec.json.encode(problem)
