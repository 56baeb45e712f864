"""A small OpenID provider that runs over real HTTP on loopback, and a browser that keeps its cookies as browsers do."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt

from ringfence.plugin.signin.app import SignIn
from tests.plugin.identity.certificates import NOW
from tests.plugin.identity.servers import Asked, Reply
from tests.plugin.identity.tokens import Issuer, encoded

CLIENT, SECRET, ORIGIN = "the gateway", "s3cret/+", "https://console.example"


@dataclass
class Provider:
    """Signs `alice` in at once. What it gets wrong is what a test tells it."""

    issuer: Issuer = field(default_factory=Issuer)
    url: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=lambda: {"typ": "JWT"})
    document: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    grants: dict[str, dict[str, str]] = field(default_factory=dict)
    exchanges: int = 0
    token_body: bytes = b""

    def __call__(self, asked: Asked) -> Reply:
        parts = urlsplit(asked.path)
        match parts.path:
            case "/.well-known/openid-configuration":
                return Reply(body=json.dumps(self.discovery()).encode())
            case "/keys":
                return Reply(body=self.issuer.jwks())
            case "/authorize":
                return self.authorize(dict(parse_qsl(parts.query)))
            case "/token":
                return self.token(asked)
            case _:
                return Reply(404)

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "end_session_endpoint": f"{self.url}/end",
            "response_types_supported": ["code", "id_token"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.document,
        }

    def authorize(self, query: dict[str, str]) -> Reply:
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert query["scope"].split()[0] == "openid"
        code = secrets.token_urlsafe(16)
        self.grants[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.url, **self.answer}
        answer = {name: value for name, value in answer.items() if value is not None}
        return Reply(303, headers={"location": f"{query['redirect_uri']}?{urlencode(answer)}"})

    def token(self, asked: Asked) -> Reply:
        self.exchanges += 1
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        pair = base64.b64decode(asked.headers.get("authorization", "").removeprefix("Basic ")).decode()
        grant = self.grants.pop(form["code"], None)  # a code counts once (RFC 6749, section 4.1.2)
        challenge = encoded(hashlib.sha256(form["code_verifier"].encode()).digest())
        if (
            pair != "the%20gateway:s3cret%2F%2B"
            or grant is None
            or grant["code_challenge"] != challenge
            or grant["redirect_uri"] != form["redirect_uri"]
            or form["client_id"] != grant["client_id"]
        ):
            return Reply(400, b'{"error":"invalid_grant"}')
        if self.token_body:
            return Reply(body=self.token_body)
        body = {"iss": self.url, "sub": "alice", "aud": CLIENT, "iat": NOW, "exp": NOW + 300, "nonce": grant["nonce"]}
        body = {name: value for name, value in {**body, **self.claims}.items() if value is not None}
        headers = {"kid": self.issuer.kid, **self.headers}
        token = jwt.encode(body, self.issuer.key, algorithm=self.issuer.algorithm, headers=headers)
        return Reply(body=json.dumps({"id_token": token, "token_type": "Bearer", "access_token": "x"}).encode())


@dataclass
class Answered:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        (value,) = [value for key, value in self.headers if key == name]
        return value

    @property
    def code(self) -> str:
        found: str = json.loads(self.body)["code"]
        return found


class Browser:
    """Calls the application as a browser that has come to `ORIGIN` would, and keeps what it sets."""

    def __init__(self, app: SignIn) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []

    async def __call__(
        self, method: str, url: str, *more: tuple[str, str], body: Sequence[bytes] = (b"",), host: str = ORIGIN[8:]
    ) -> Answered:
        parts = urlsplit(url)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = [("host", host), *([("cookie", cookie)] if cookie else []), *more]
        chunks = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in body]
        if chunks:
            chunks[-1]["more_body"] = False
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            return chunks.pop(0) if chunks else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        }
        await self.app(scope, receive, send)
        answered = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        self.set_cookies = [value for name, value in answered if name == "set-cookie"]
        for line in self.set_cookies:
            name, _, value = line.partition(";")[0].partition("=")
            assert name.startswith("__Host-")
            assert "; Path=/;" in line
            assert "; Secure;" in line
            assert "Domain" not in line
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return Answered(sent[0]["status"], answered, sent[1]["body"])
