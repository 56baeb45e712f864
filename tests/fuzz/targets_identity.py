"""The decoders of the identity factors, of directories and of browsers' requests; see `targets.py`."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from ringfence.errors import RingfenceError
from ringfence.plugin.identity import (
    approvals,
    ceremony,
    chains,
    credentials,
    device,
    directory_file,
    dpop,
    jose,
    jwks,
    oidc,
    scim_pages,
    spiffe,
    svid,
)
from ringfence.plugin.identity.claims import Claims
from ringfence.plugin.identity.enrolment import check_enrolment
from ringfence.plugin.identity.names import checked
from ringfence.plugin.identity.settings import ScimDirectorySettings
from ringfence.plugin.identity.webauthn import Assertion
from ringfence.plugin.signin import cookies, csrf, flow, provider
from ringfence.trust import TrustList
from tests.fuzz.target import Target

_ALGORITHMS = frozenset({"ES256", "EdDSA"})
_TYPES = frozenset({"at+jwt", ""})
_PARTY = ceremony.RelyingParty("a", frozenset({"https://a"}))
_SCIM = ScimDirectorySettings("https://a", Path("token"), tenant="name.a", attributes={"a": "urn:a:b"})
_KEY = {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}  # RFC 8037
_SET = json.dumps({"keys": [_KEY]}).encode()
_TOKEN = b"eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImEifQ.eyJzdWIiOiJhIn0.AAAA"
_CLAIMS = b'{"iss":"a","sub":"b","aud":["c"],"exp":2,"iat":1,"cnf":{"jkt":"%s"}}' % (b"A" * 43)
_ASSERTION = (
    b'{"id":"YQ","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AAAA","signature":"AAAA"}}'
)
_CLIENT_DATA = b'{"type":"webauthn.get","challenge":"AAAA","origin":"https://a","crossOrigin":false}'
_PAGE = b"""{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":1,"Resources":[{"id":"1",
"userName":"a","active":true,"displayName":"g","members":[{"value":"1"}]}]}"""
_AUTHENTICATOR = hashlib.sha256(b"a").digest() + b"\x05\0\0\0\1"


def _token(data: bytes) -> object:
    token = jose.parse(data, algorithms=_ALGORITHMS, types=_TYPES, field="token")
    return jose.verified(token, jwks.decode(_SET)["a"], field="token")


def _proof(data: bytes) -> None:
    dpop.check(data, dpop.Expected("POST", "https://a", "b", bytes(32), "A" * 43, 60), now=1)


def _chain(data: bytes) -> None:
    for certificate in chains.decode(data):
        thumbprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        with contextlib.suppress(RingfenceError):
            svid.verify_chain(data, thumbprint, svid.Bundles({}, ""), now=0, max_lifetime_s=60)


def _authenticator(data: bytes) -> None:
    ceremony.check_authenticator(ceremony.authenticator_data(data), _PARTY)


def _enrolment(data: bytes) -> object:
    # As the attestation object of a registration that is otherwise in order.
    client_data = _CLIENT_DATA.replace(b"get", b"create")
    encoded = {"clientDataJSON": ceremony.encoded(client_data), "attestationObject": ceremony.encoded(data)}
    registration = json.dumps({"id": "YQ", "type": "public-key", "response": encoded}).encode()
    return check_enrolment(registration, owner="a", challenge=bytes(3), party=_PARTY, allow_unattested=True, now=0)


def _page(data: bytes) -> object:
    page = scim_pages.decode(data)
    return scim_pages.entries(page.resources, page.resources, _SCIM)


def _request(data: bytes) -> None:
    lines = [line.partition(":") for line in data.decode("latin-1").split("\n")]
    csrf.protect("POST", [(name, value) for name, _, value in lines], key=bytes(32), origin="https://a")


def _name(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(RingfenceError):
        spiffe.parse(text)
    checked(text, field="name")


TARGETS: Mapping[str, Target] = {
    "identity.approval": Target(lambda data: approvals.verify(data, TrustList(), now=0), (b'{"statement":"e30="}',)),
    "identity.assertion": Target(lambda data: ceremony.decode(data, Assertion, "It"), (_ASSERTION,)),
    "identity.authenticator_data": Target(_authenticator, (_AUTHENTICATOR,)),
    "identity.chain": Target(_chain, (b"-----BEGIN CERTIFICATE-----\n", b"\x30\x82\x01\x00")),
    "identity.claims": Target(lambda data: jose.claims(data, Claims, field="token"), (_CLAIMS,)),
    "identity.client_data": Target(
        lambda data: ceremony.check_client_data(data, "webauthn.get", bytes(3), _PARTY), (_CLIENT_DATA,)
    ),
    "identity.credential_key": Target(credentials.read_key, (b"\xa4\x01\x01\x03\x27\x20\x06\x21\x58\x20" + bytes(32),)),
    "identity.credentials": Target(lambda data: credentials.parse(data, "fuzz"), (b'{"version":1}',)),
    "identity.device": Target(device.decode_evidence, (b'{"result":"a","signature":"AAAA"}',)),
    "identity.directory_json": Target(
        lambda data: directory_file.parse(data, "a.json", now=0), (b'{"version":1,"principal":[{"name":"a"}]}',)
    ),
    "identity.directory_toml": Target(
        lambda data: directory_file.parse(data, "a.toml", now=0), (b'version = 1\n[[principal]]\nname = "a"\n',)
    ),
    "identity.enrolment": Target(_enrolment, (b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x40",)),
    "identity.jwks": Target(jwks.decode, (_SET,)),
    "identity.name": Target(_name, (b"spiffe://a/b", "\u0430b".encode())),
    "identity.proof": Target(_proof, (_TOKEN,)),
    "identity.scim_page": Target(_page, (_PAGE,)),
    "identity.token": Target(_token, (_TOKEN,)),
    "identity.token_evidence": Target(oidc.decode_evidence, (b'{"token":"a","proof":"b"}',)),
    "signin.cookie": Target(
        lambda data: cookies.read([("cookie", data.decode("latin-1"))], cookies.SESSION), (b"__Host-ringfence=a; b=c",)
    ),
    "signin.discovery": Target(lambda data: provider.decode(data, "a"), (b'{"issuer":"a"}',)),
    "signin.pending": Target(lambda data: flow.reopen(data.decode("latin-1"), key=bytes(32), now=0), (b"AAAA",)),
    "signin.request": Target(_request, (b"origin:https://a\ncookie:__Host-ringfence-csrf=a\nx-csrf-token:a",)),
}
