"""WebAuthn with a software authenticator: assertions, counters, enrolment, and the file that keeps credentials."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from fido2 import cbor
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import RingfenceError
from ringfence.plugin.identity.ceremony import RelyingParty
from ringfence.plugin.identity.credentials import MAX_OF_ONE, Credential, CredentialFile, parse
from ringfence.plugin.identity.enrolment import check_enrolment
from ringfence.plugin.identity.errors import IdentityError
from ringfence.plugin.identity.port import Binding, Proven
from ringfence.plugin.identity.webauthn import COUNTER_ODDITY, WebAuthnFactor, check_assertion, user_handle
from tests.plugin.identity.authenticator import AT, ED, ORIGIN, RP_ID, UP, UV, Authenticator
from tests.plugin.identity.certificates import NOW, Issued, moment, p256
from tests.plugin.identity.tokens import encoded

CHALLENGE = hashlib.sha256(b"handshake").digest()
BINDING = Binding(CHALLENGE, "", "")
PARTY = RelyingParty(RP_ID, frozenset({ORIGIN}))


def enrol(device: Authenticator, **options: Any) -> Credential:
    options = {"allow_unattested": True, "owner": "alice", "challenge": CHALLENGE, "now": NOW, **options}
    registration = options.pop("registration", None) or device.registration(CHALLENGE)
    return check_enrolment(registration, party=PARTY, **options)


async def store_of(path: Path, *devices: Authenticator) -> CredentialFile:
    store = CredentialFile(path)
    for device in devices:
        await store.add(enrol(device))
    return store


async def refusal(store: CredentialFile, evidence: bytes) -> str:
    factor = WebAuthnFactor(PARTY, store, lifetime_s=900)
    with pytest.raises(IdentityError) as refused:
        await factor.verify(evidence, BINDING, now=NOW)
    return refused.value.code.name


@pytest.mark.parametrize("key", [p256(), ed25519.Ed25519PrivateKey.generate()])
async def test_an_assertion_proves_that_its_owner_was_verified(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    device = Authenticator(key)
    factor = WebAuthnFactor(PARTY, await store_of(tmp_path / "credentials", device), lifetime_s=900)
    proven = await factor.verify(device.assertion(CHALLENGE, handle=user_handle("alice")), BINDING, now=NOW)
    attributes = ("user_verified=true", "authenticator_attested=false")
    assert proven == Proven("webauthn", "alice", True, NOW + 900, attributes=attributes)
    assert "biometric" not in repr(proven)


async def test_a_counter_that_goes_back_or_stands_still_raises_the_risk(tmp_path: Path) -> None:
    device = Authenticator()
    store = await store_of(tmp_path / "credentials", device)
    factor = WebAuthnFactor(PARTY, store, lifetime_s=900)
    seen = []
    for counter in (0, 0, 5, 9, 9, 3, 0, 10):
        device.counter = counter
        seen.append((await factor.verify(device.assertion(CHALLENGE), BINDING, now=NOW)).oddities)
    odd = (COUNTER_ODDITY,)
    assert seen == [(), (), (), (), odd, odd, odd, ()]
    # The latest counter is durable.
    kept = CredentialFile(tmp_path / "credentials").find(device.credential)
    assert kept is not None
    assert kept.counter == 10


async def test_of_two_assertions_with_one_counter_only_one_is_in_order(tmp_path: Path) -> None:
    device = Authenticator(counter=7)
    store = await store_of(tmp_path / "credentials", Authenticator(device.key))
    in_order = await asyncio.gather(*[store.advance(device.credential, 7) for _ in range(5)])
    assert sorted(in_order) == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ({"challenge": bytes(32)}, "identity.ceremony_misdirected"),
        ({"client": {"type": "webauthn.create"}}, "identity.ceremony_misdirected"),
        ({"client": {"origin": "https://gateway.example:8443"}}, "identity.ceremony_misdirected"),
        ({"client": {"origin": "https://evil.example"}}, "identity.ceremony_misdirected"),
        ({"client": {"crossOrigin": True}}, "identity.ceremony_misdirected"),
        ({"client": {"topOrigin": "https://evil.example"}}, "identity.ceremony_misdirected"),
        ({"client": {"challenge": 7}}, "identity.evidence_malformed"),
        ({"flags": UP}, "identity.user_not_verified"),
        ({"flags": UV}, "identity.user_not_verified"),
        ({"flags": 0}, "identity.user_not_verified"),
        ({"flags": UP | UV | AT}, "identity.evidence_malformed"),
        ({"data": b"short"}, "identity.evidence_malformed"),
        # Extensions whose length is cut short: found by fuzzing.
        ({"data": Authenticator().data(UP | UV | ED, b"\xbb\0\0\1")}, "identity.evidence_malformed"),
        ({"data": Authenticator(rp_id="evil.example").data(UP | UV)}, "identity.ceremony_misdirected"),
        ({"signature": b""}, "identity.assertion_signature"),
        ({"signature": bytes(64)}, "identity.assertion_signature"),
        ({"handle": user_handle("bob")}, "identity.credential_unknown"),
    ],
)
async def test_another_assertion_is_refused(tmp_path: Path, made: dict[str, Any], code: str) -> None:
    device = Authenticator()
    store = await store_of(tmp_path / "credentials", device)
    assert await refusal(store, device.assertion(**{"challenge": CHALLENGE, **made})) == code


async def test_a_strangers_credential_or_key_is_refused(tmp_path: Path) -> None:
    device = Authenticator()
    store = await store_of(tmp_path / "credentials", device)
    assert (
        await refusal(store, Authenticator(credential=b"other").assertion(CHALLENGE)) == "identity.credential_unknown"
    )
    assert await refusal(store, Authenticator().assertion(CHALLENGE)) == "identity.assertion_signature"
    assert await refusal(store, b"{}") == "identity.evidence_malformed"
    crooked = device.assertion(CHALLENGE).replace(encoded(device.credential).encode(), b"A")
    assert await refusal(store, crooked) == "identity.evidence_malformed"
    assert await refusal(store, b" " * 40_000) == "identity.evidence_too_large"


@given(st.binary(min_size=1, max_size=40), st.integers(0, 600))
def test_an_altered_assertion_never_raises_anything_else(junk: bytes, at: int) -> None:
    device = Authenticator()
    held = enrol(device)

    class Only:
        def find(self, credential: bytes) -> Credential | None:
            return held if credential == held.credential else None

        def of(self, owner: str) -> tuple[Credential, ...]:
            return (held,) if owner == held.owner else ()

        async def advance(self, credential: bytes, counter: int) -> bool:
            return credential == held.credential and counter > held.counter

        async def add(self, credential: Credential) -> None:
            raise AssertionError(credential)

    data = device.assertion(CHALLENGE)
    altered = data[:at] + junk + data[at + len(junk) :]
    try:
        check_assertion(altered, CHALLENGE, PARTY, Only())
    except RingfenceError:
        return


def refused(device: Authenticator, **options: Any) -> str:
    with pytest.raises(IdentityError) as error:
        enrol(device, **options)
    return error.value.code.name


def test_an_unattested_credential_needs_leave() -> None:
    device = Authenticator()
    assert not enrol(device).attested
    assert refused(device, allow_unattested=False) == "identity.enrolment_refused"
    # Signed by its own key: that nobody vouches for it stays true.
    own = device.registration(CHALLENGE, form="packed")
    assert not enrol(device, registration=own).attested
    assert refused(device, registration=own, allow_unattested=False) == "identity.enrolment_refused"


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ({"challenge": bytes(32)}, "identity.ceremony_misdirected"),
        ({"flags": UP | AT}, "identity.user_not_verified"),
        ({"flags": UP | UV}, "identity.enrolment_refused"),
        ({"form": "fido-u2f"}, "identity.enrolment_refused"),
        ({"form": "packed", "statement": {}}, "identity.enrolment_refused"),
        ({"form": "packed", "statement": {"alg": -7, "sig": bytes(64)}}, "identity.enrolment_refused"),
        ({"form": "packed", "statement": {"alg": -7, "sig": b"", "x5c": [b"junk"]}}, "identity.enrolment_refused"),
        ({"cose": {1: 2, 3: -47, -1: 8, -2: bytes(32), -3: bytes(32)}}, "identity.evidence_malformed"),
        ({"cose": {1: 3, 3: -257, -1: bytes(128), -2: b"\1\0\1"}}, "identity.evidence_malformed"),
        ({"cose": {1: 1, 3: -7, -1: 6, -2: bytes(32)}}, "identity.evidence_malformed"),
    ],
)
def test_another_enrolment_is_refused(made: dict[str, Any], code: str) -> None:
    device = Authenticator()
    assert refused(device, registration=device.registration(**{"challenge": CHALLENGE, **made})) == code


@pytest.mark.parametrize("attestation", [b"", b"\xa0", cbor.encode({"fmt": 1, "attStmt": {}, "authData": bytes(37)})])
def test_what_is_no_attestation_object_is_refused(attestation: bytes) -> None:
    device = Authenticator()
    registration = device.registered(device.client_data("webauthn.create", CHALLENGE, {}), attestation)
    assert refused(device, registration=registration) == "identity.evidence_malformed"


def test_names_that_imitate_others_cannot_be_enrolled() -> None:
    assert refused(Authenticator(), owner="al\u0456ce") == "identity.name_unsafe"


def maker() -> tuple[Issued, Issued]:
    """An authenticator maker's authority and one of its attestation certificates (section 8.2.1)."""
    key, leaf = p256(), p256()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "maker")])
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "SE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "maker"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Authenticator Attestation"),
            x509.NameAttribute(NameOID.COMMON_NAME, "key"),
        ]
    )

    def sign(whose: x509.Name, public: ec.EllipticCurvePrivateKey, ca: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(whose).issuer_name(name).public_key(public.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(moment(NOW - 9))
        builder = builder.not_valid_after(moment(NOW + 9)).add_extension(x509.BasicConstraints(ca, None), critical=True)
        aaguid = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.45724.1.1.4"), b"\x04\x10" + bytes(16))
        if not ca:
            builder = builder.add_extension(aaguid, critical=False)
        return builder.sign(key, hashes.SHA256())

    return Issued(sign(name, key, True), key), Issued(sign(subject, leaf, False), leaf)


def test_an_attested_credential_needs_an_authority_that_is_configured() -> None:
    root, leaf = maker()
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    device = Authenticator()
    plain = device.registration(CHALLENGE, form="packed")
    client_data = device.client_data("webauthn.create", CHALLENGE, {})
    signed = device.data(
        UP | UV | AT, bytes(16) + len(device.credential).to_bytes(2) + device.credential + cbor.encode(device.cose)
    )
    signature = leaf.key.sign(signed + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
    statement = {"alg": -7, "sig": signature, "x5c": [leaf.certificate.public_bytes(Encoding.DER)]}
    registration = device.registration(CHALLENGE, form="packed", statement=statement)
    assert plain != registration
    options = {"registration": registration, "allow_unattested": False}
    assert enrol(device, authorities=(root.certificate,), **options).attested
    # The authority is right, and its certificates are not valid any more.
    assert refused(device, authorities=(root.certificate,), now=NOW + 10, **options) == "identity.enrolment_refused"
    assert refused(device, authorities=(maker()[0].certificate,), **options) == "identity.enrolment_refused"
    assert refused(device, **options) == "identity.enrolment_refused"


async def test_the_file_is_its_owners_and_keeps_what_was_enrolled(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    device = Authenticator()
    store = await store_of(path, device)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert CredentialFile(path).of("alice") == store.of("alice") == (enrol(device),)
    with pytest.raises(IdentityError) as twice:
        await store.add(enrol(device))
    assert twice.value.code.name == "identity.credential_exists"
    for number in range(MAX_OF_ONE - 1):
        await store.add(enrol(Authenticator(credential=b"%d" % number)))
    with pytest.raises(IdentityError) as full:
        await store.add(enrol(Authenticator(credential=b"one more")))
    assert full.value.code.name == "identity.credentials_full"


async def test_what_cannot_be_written_is_not_enrolled(tmp_path: Path) -> None:
    store = CredentialFile(tmp_path / "absent" / "credentials")
    with pytest.raises(IdentityError) as unusable:
        await store.add(enrol(Authenticator()))
    assert unusable.value.code.name == "identity.credentials_unusable"
    assert store.of("alice") == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"version":2}',
        b'{"version":1,"credentials":[{"credential":"AA==","owner":"a","key":"AA==","counter":0,"enrolled_at":0}]}',
        b'{"version":1,"credentials":[{"credential":"AA==","owner":"","key":"AA==","counter":0,"enrolled_at":0}]}',
    ],
)
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        parse(data, "credentials")
