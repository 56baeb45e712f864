"""X.509-SVIDs: what a chain must be, each way in which it may not be, and the memory of those that were verified."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import RingfenceError
from ringfence.plugin.identity import chains, spiffe
from ringfence.plugin.identity.bundles import BundleFiles
from ringfence.plugin.identity.errors import IdentityError
from ringfence.plugin.identity.port import Binding
from ringfence.plugin.identity.svid import Bundles, SvidFactor, verify_chain
from tests.plugin.identity.certificates import NOW, WORKLOAD, Issued, authority, certificate

ROOT = authority()
MIDDLE = certificate(ROOT, uris=("spiffe://example.org",), ca=True, name="example.org intermediate")
LEAF = certificate(MIDDLE, uris=(WORKLOAD,))
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what must be refused
BUNDLES = Bundles({"example.org": (ROOT.certificate,), "other.org": (authority("other.org").certificate,)}, "one")


def check(*chain: Issued, now: int = NOW, thumbprint: str = "") -> tuple[spiffe.SpiffeId, int]:
    data = b"".join(one.pem for one in chain)
    return verify_chain(data, thumbprint or chain[0].thumbprint, BUNDLES, now=now, max_lifetime_s=7200)


def refusal(*chain: Issued, now: int = NOW, thumbprint: str = "") -> str:
    with pytest.raises(IdentityError) as refused:
        check(*chain, now=now, thumbprint=thumbprint)
    return refused.value.code.name


def test_a_chain_proves_its_workload_until_its_first_certificate_ends() -> None:
    assert check(LEAF, MIDDLE) == (spiffe.SpiffeId("example.org", "/ns/jobs/sa/alice"), NOW + 3600)
    brief = certificate(ROOT, uris=("spiffe://example.org",), ca=True, name="brief", ends=NOW + 600)
    assert check(certificate(brief, uris=(WORKLOAD,)), brief)[1] == NOW + 600


def test_der_one_behind_the_other_is_read_as_pem_is() -> None:
    data = LEAF.der + MIDDLE.der
    assert verify_chain(data, LEAF.thumbprint, BUNDLES, now=NOW, max_lifetime_s=7200) == check(LEAF, MIDDLE)


@pytest.mark.parametrize(
    "make", [lambda: rsa.generate_private_key(65537, 2048), lambda: ec.generate_private_key(ec.SECP384R1())]
)
def test_rsa_and_p384_keys_count_too(make: object) -> None:
    assert callable(make)
    assert check(certificate(ROOT, uris=(WORKLOAD,), key=make()))[0].trust_domain == "example.org"


@pytest.mark.parametrize(
    ("chain", "code"),
    [
        ((LEAF,), "identity.chain_untrusted"),
        ((certificate(authority(), uris=(WORKLOAD,)),), "identity.chain_untrusted"),
        ((certificate(ROOT, uris=(WORKLOAD,), starts=NOW + 10),), "identity.chain_untrusted"),
        ((certificate(ROOT, uris=(WORKLOAD,), starts=NOW - 99, ends=NOW - 9),), "identity.chain_untrusted"),
        # An authority of one trust domain speaks for no other.
        ((certificate(ROOT, uris=("spiffe://other.org/alice",)),), "identity.chain_untrusted"),
        ((certificate(ROOT, uris=("spiffe://nowhere.org/alice",)),), "identity.trust_domain_unknown"),
        ((certificate(ROOT, uris=(WORKLOAD, "spiffe://example.org/bob")),), "identity.spiffe_id_invalid"),
        ((certificate(ROOT, name="alice"),), "identity.spiffe_id_invalid"),
        ((certificate(ROOT, uris=("https://example.org/alice",)),), "identity.spiffe_id_invalid"),
        ((certificate(ROOT, uris=("spiffe://example.org",)),), "identity.spiffe_id_invalid"),
        ((certificate(ROOT, uris=(WORKLOAD,), ca=True),), "identity.leaf_unfit"),
        ((certificate(ROOT, uris=(WORKLOAD,), signs=True),), "identity.leaf_unfit"),
        ((certificate(ROOT, uris=(WORKLOAD,), usage=False),), "identity.leaf_unfit"),
        ((certificate(ROOT, uris=(WORKLOAD,), usage_critical=False),), "identity.leaf_unfit"),
        ((certificate(ROOT, uris=(WORKLOAD,), digital_signature=False),), "identity.leaf_unfit"),
        ((certificate(ROOT, uris=(WORKLOAD,), ends=NOW + 9000),), "identity.leaf_unfit"),
        ((certificate(ROOT, uris=(WORKLOAD,), key=SHORT),), "identity.key_weak"),
        ((certificate(ROOT, uris=(WORKLOAD,), key=ec.generate_private_key(ec.SECP521R1())),), "identity.key_weak"),
        ((certificate(ROOT, uris=(WORKLOAD,), key=ec.generate_private_key(ec.SECP256K1())),), "identity.key_weak"),
        ((certificate(ROOT, uris=(WORKLOAD,), key=ed25519.Ed25519PrivateKey.generate()),), "identity.key_weak"),
    ],
)
def test_what_is_no_svid_is_refused(chain: tuple[Issued, ...], code: str) -> None:
    assert refusal(*chain) == code


def test_an_intermediate_of_another_trust_domain_or_without_the_right_is_refused() -> None:
    foreign = certificate(ROOT, uris=("spiffe://other.org",), ca=True, name="foreign")
    assert refusal(certificate(foreign, uris=(WORKLOAD,)), foreign) == "identity.chain_untrusted"
    mute = certificate(ROOT, ca=True, name="mute", signs=False)
    assert refusal(certificate(mute, uris=(WORKLOAD,)), mute) in {"identity.chain_untrusted", "identity.leaf_unfit"}
    workload = certificate(ROOT, uris=(WORKLOAD,), name="workload")
    assert refusal(certificate(workload, uris=(WORKLOAD,)), workload) == "identity.chain_untrusted"


def test_what_an_authority_restricts_and_nobody_understands_is_kept() -> None:
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)
    elsewhere = (x509.NameConstraints([x509.UniformResourceIdentifier("other.org")], None), True)
    signs_code = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
    is_client = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False)
    assert check(certificate(ROOT, uris=(WORKLOAD,), extensions=(is_client,)))
    assert refusal(certificate(ROOT, uris=(WORKLOAD,), extensions=(signs_code,))) == "identity.leaf_unfit"
    assert refusal(certificate(ROOT, uris=(WORKLOAD,), extensions=(unknown,))) == "identity.chain_untrusted"
    for restriction in (unknown, elsewhere):
        middle = certificate(ROOT, ca=True, name="middle", extensions=(restriction,))
        assert refusal(certificate(middle, uris=(WORKLOAD,)), middle) == "identity.chain_untrusted"
    last = certificate(ROOT, ca=True, name="last", path_length=0)
    beyond = certificate(last, ca=True, name="beyond")
    assert refusal(certificate(beyond, uris=(WORKLOAD,)), beyond, last) == "identity.chain_untrusted"
    assert check(certificate(last, uris=(WORKLOAD,)), last)


def test_a_chain_of_another_channel_is_refused() -> None:
    assert refusal(LEAF, MIDDLE, thumbprint=MIDDLE.thumbprint) == "identity.channel_mismatch"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "identity.evidence_malformed"),
        (b"-----BEGIN CERTIFICATE-----\n", "identity.evidence_malformed"),
        (LEAF.der[:-1], "identity.evidence_malformed"),
        (LEAF.der + b"\0\0\0\0", "identity.evidence_malformed"),
        (LEAF.pem * 6, "identity.evidence_malformed"),
        (LEAF.der * 6, "identity.evidence_malformed"),
        (b"-----BEGIN" + b"A" * chains.MAX_CHAIN, "identity.evidence_too_large"),
    ],
)
def test_what_is_no_chain_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(IdentityError) as refused:
        chains.decode(data)
    assert refused.value.code.name == code


@given(st.binary(max_size=200), st.integers(0, 400))
def test_an_altered_chain_never_raises_anything_else(junk: bytes, at: int) -> None:
    data = LEAF.der[:at] + junk + LEAF.der[at + len(junk) :]
    try:
        verify_chain(data, LEAF.thumbprint, BUNDLES, now=NOW, max_lifetime_s=7200)
    except RingfenceError:
        return
    assert data == LEAF.der


@pytest.mark.parametrize(
    "text",
    [
        "SPIFFE://example.org/a",
        "spiffe://Example.org/a",
        "spiffe://example.org:443/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://example.org/a%2fb",
        "spiffe://example.org//a",
        "spiffe://example.org/a/",
        "spiffe://example.org/../a",
        "spiffe://example.org/./a",
        "spiffe:///a",
        "spiffe://ex\u0430mple.org/a",
        "spiffe://example.org/" + "a" * 2048,
    ],
)
def test_a_spiffe_id_has_one_spelling(text: str) -> None:
    with pytest.raises(IdentityError):
        spiffe.parse(text)
    assert str(spiffe.parse(WORKLOAD)) == WORKLOAD


async def test_a_verified_chain_is_remembered_until_it_ends_or_the_bundles_change() -> None:
    held = [BUNDLES]
    factor = SvidFactor(lambda _: held[0], max_lifetime_s=7200, remembered=2)
    binding = Binding(bytes(32), LEAF.thumbprint, "")
    first = await factor.verify(LEAF.pem + MIDDLE.pem, binding, now=NOW)
    assert (first.subject, first.key_bound, first.proven_until) == (WORKLOAD, True, NOW + 3600)

    # Remembered: the chain is not read.
    assert await factor.verify(b"", binding, now=NOW + 3599) == first
    with pytest.raises(IdentityError):
        await factor.verify(b"", binding, now=NOW + 3600)
    await factor.verify(LEAF.pem + MIDDLE.pem, binding, now=NOW)
    held[0] = Bundles({"other.org": BUNDLES.authorities["other.org"]}, "two")
    with pytest.raises(IdentityError) as refused:
        await factor.verify(LEAF.pem + MIDDLE.pem, binding, now=NOW)
    assert refused.value.code.name == "identity.trust_domain_unknown"


async def test_no_more_chains_are_remembered_than_allowed() -> None:
    factor = SvidFactor(lambda _: BUNDLES, max_lifetime_s=7200, remembered=2)
    leaves = [certificate(ROOT, uris=(WORKLOAD,)) for _ in range(3)]
    for leaf in leaves:
        await factor.verify(leaf.pem, Binding(bytes(32), leaf.thumbprint, ""), now=NOW)
    for leaf in leaves[1:]:
        await factor.verify(b"", Binding(bytes(32), leaf.thumbprint, ""), now=NOW)
    with pytest.raises(IdentityError):
        await factor.verify(b"", Binding(bytes(32), leaves[0].thumbprint, ""), now=NOW)


async def test_a_channel_without_a_certificate_proves_nothing() -> None:
    factor = SvidFactor(lambda _: BUNDLES, max_lifetime_s=7200, remembered=2)
    with pytest.raises(IdentityError) as refused:
        await factor.verify(LEAF.pem + MIDDLE.pem, Binding(bytes(32), "", ""), now=NOW)
    assert refused.value.code.name == "identity.channel_mismatch"


def test_bundles_are_read_again_when_a_file_changes_and_trust_nobody_when_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    path.write_bytes(ROOT.pem)
    bundles = BundleFiles({"example.org": path})
    first = bundles(NOW)
    assert first.authorities["example.org"] == (ROOT.certificate,)
    path.write_bytes(ROOT.pem + authority().pem)
    assert bundles(NOW) is first
    assert len(bundles(NOW + 1).authorities["example.org"]) == 2
    assert bundles(NOW + 1).digest != first.digest
    path.write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(IdentityError):
            bundles(NOW + 2)
    path.unlink()
    with pytest.raises(IdentityError):
        bundles(NOW + 3)
    with pytest.raises(IdentityError):
        BundleFiles({"Example.org": path})


def with_sha1(leaf: Issued, key: rsa.RSAPrivateKey) -> bytes:
    """`leaf` signed by `key` with SHA-1, a signature that holds (RFC 8017, section 9.2): no library makes one."""
    sha256_rsa, sha1_rsa = (bytes.fromhex(f"2a864886f70d0101{last}") for last in ("0b", "05"))
    body = leaf.certificate.tbs_certificate_bytes.replace(sha256_rsa, sha1_rsa)
    digest = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(body, usedforsecurity=False).digest()
    numbers, size = key.private_numbers(), key.key_size // 8
    padded = b"\0\1" + b"\xff" * (size - 3 - len(digest)) + b"\0" + digest
    signature = pow(int.from_bytes(padded), numbers.d, numbers.public_numbers.n).to_bytes(size)
    old = leaf.certificate.signature
    rest = leaf.der[: -len(old)].replace(sha256_rsa, sha1_rsa)
    return rest + signature


def test_an_sha1_signature_does_not_count() -> None:
    key = rsa.generate_private_key(65537, 2048)
    root = authority(key=key)
    bundles = Bundles({"example.org": (root.certificate,)}, "rsa")
    leaf = certificate(root, uris=(WORKLOAD,))
    assert verify_chain(leaf.der, leaf.thumbprint, bundles, now=NOW, max_lifetime_s=7200)
    der = with_sha1(leaf, key)
    with pytest.raises(IdentityError) as refused:
        verify_chain(der, hashlib.sha256(der).hexdigest(), bundles, now=NOW, max_lifetime_s=7200)
    assert refused.value.code.name == "identity.chain_untrusted"
