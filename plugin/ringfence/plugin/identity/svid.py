"""The factor "svid": an X.509-SVID over mutual TLS, and thereafter the thumbprint of its certificate.

Sources: the SPIFFE X.509-SVID standard, sections 3 to 5; RFC 5280, section 6; RFC 8705 for the thumbprint. The chain is
verified by `cryptography.x509.verification`, which knows no Ed25519 keys in a path: RSA from 2048 bits, P-256 and P-384
are what is accepted. TLS has proven the leaf's key to the host that passes the chain on; the thumbprint ties the chain
to that channel, so that a chain copied from elsewhere is worth nothing.
"""

from __future__ import annotations

import datetime
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from ringfence.plugin.identity import chains, spiffe
from ringfence.plugin.identity.errors import (
    CHAIN_UNTRUSTED,
    CHANNEL_MISMATCH,
    KEY_WEAK,
    LEAF_UNFIT,
    SPIFFE_ID_INVALID,
    TRUST_DOMAIN_UNKNOWN,
    IdentityError,
)
from ringfence.plugin.identity.port import Binding, Proven

NAME: Final = "svid"
MIN_RSA_BITS: Final = 2048
MAX_DEPTH: Final = chains.MAX_CERTIFICATES


@dataclass(frozen=True, slots=True)
class Bundles:
    """The authorities of each trust domain, and a `digest` that changes with any of them."""

    authorities: Mapping[str, tuple[x509.Certificate, ...]]
    digest: str


@dataclass(frozen=True, slots=True)
class _Remembered:
    spiffe_id: str
    ends_at: int
    digest: str


class SvidFactor:
    """Verifies chains against what `bundles` gives at the time; remembers at most `remembered` of them.

    A remembered chain counts until its first certificate ends or the bundles change.
    """

    name: Final = NAME

    def __init__(self, bundles: Callable[[int], Bundles], *, max_lifetime_s: int, remembered: int) -> None:
        self._bundles = bundles
        self._max_lifetime_s = max_lifetime_s
        self._limit = remembered
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

    async def verify(self, evidence: bytes, binding: Binding, *, now: int) -> Proven:
        """`evidence` is the chain, PEM or DER, the leaf first; where its leaf is remembered it is not read again."""
        if not binding.thumbprint:
            raise IdentityError(
                CHANNEL_MISMATCH,
                "The channel has no client certificate, so a chain proves nothing on it.",
                field="certificate",
                hint="Connect with mutual TLS, through a host that passes the certificate on.",
            )
        bundles = self._bundles(now)
        held = self._remembered.get(binding.thumbprint)
        if held is not None and held.digest == bundles.digest and now < held.ends_at:
            self._remembered.move_to_end(binding.thumbprint)
            return Proven(NAME, held.spiffe_id, True, held.ends_at)
        self._remembered.pop(binding.thumbprint, None)
        identity, ends_at = verify_chain(
            evidence, binding.thumbprint, bundles, now=now, max_lifetime_s=self._max_lifetime_s
        )
        self._remembered[binding.thumbprint] = _Remembered(str(identity), ends_at, bundles.digest)
        if len(self._remembered) > self._limit:
            self._remembered.popitem(last=False)
        return Proven(NAME, str(identity), True, ends_at)


def verify_chain(
    data: bytes, thumbprint: str, bundles: Bundles, *, now: int, max_lifetime_s: int
) -> tuple[spiffe.SpiffeId, int]:
    """The SPIFFE id of a chain, and when its first certificate ends, in seconds since the epoch.

    Raises `identity.channel_mismatch`, `_leaf_unfit`, `_spiffe_id_invalid`, `_trust_domain_unknown`, `_key_weak`,
    `_chain_untrusted`, and what `chains.decode` raises.
    """
    leaf, *others = chains.decode(data)
    if not hmac.compare_digest(leaf.fingerprint(SHA256()).hex(), thumbprint):
        raise IdentityError(
            CHANNEL_MISMATCH, "The chain does not begin with the channel's certificate.", field="certificate"
        )
    try:
        identity = _identity(leaf)
        _fit(leaf, max_lifetime_s)
        authorities = bundles.authorities.get(identity.trust_domain)
        if authorities is None:
            raise IdentityError(
                TRUST_DOMAIN_UNKNOWN,
                f"The trust domain {identity.trust_domain} is not configured here.",
                field="certificate",
                hint="An operator can add its bundle to the gateway's `identity.svid.bundles`.",
            )
        for certificate in (leaf, *others):
            _strong(certificate)
        path = _verified(leaf, others, authorities, now)
        for certificate in path[1:]:
            _signs_for(certificate, identity.trust_domain)
    except (*chains.FAULTS, UnsupportedAlgorithm) as error:
        raise IdentityError(
            LEAF_UNFIT, f"A certificate of the chain cannot be used ({type(error).__name__}).", field="certificate"
        ) from None
    return identity, min(int(certificate.not_valid_after_utc.timestamp()) for certificate in path)


def _identity(leaf: x509.Certificate) -> spiffe.SpiffeId:
    names = _uris(leaf)
    if len(names) != 1:
        raise IdentityError(
            SPIFFE_ID_INVALID, f"The certificate has {len(names)} URI names, not one.", field="certificate"
        )
    identity = spiffe.parse(names[0])
    if not identity.path:
        raise IdentityError(
            SPIFFE_ID_INVALID, "The certificate names a trust domain, and no workload in it.", field="certificate"
        )
    return identity


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _fit(leaf: x509.Certificate, max_lifetime_s: int) -> None:
    """Section 4 of the standard: a leaf signs nothing but TLS handshakes."""
    extensions = leaf.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise _unfit("it is an authority's")
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        raise _unfit("it does not say what its key may be used for") from None
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
            raise _unfit("its key is for other purposes than a client's")
    except x509.ExtensionNotFound:
        pass
    value = usage.value
    if not usage.critical or not value.digital_signature or value.key_cert_sign or value.crl_sign:
        raise _unfit("its key usage is not that of a leaf")
    lifetime = int((leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds())
    if not 0 < lifetime <= max_lifetime_s:
        raise _unfit(f"it lives for {lifetime} s, more than the {max_lifetime_s} s that count here")


def _strong(certificate: x509.Certificate) -> None:
    match certificate.public_key():
        case rsa.RSAPublicKey() as key if key.key_size >= MIN_RSA_BITS:
            pass
        case ec.EllipticCurvePublicKey() as key if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            pass
        case _:
            raise IdentityError(
                KEY_WEAK,
                f"A key of the chain is not RSA with {MIN_RSA_BITS} bits or more, P-256 or P-384.",
                field="certificate",
                hint="Let the trust domain issue P-256 certificates.",
            )


def _verified(
    leaf: x509.Certificate, others: list[x509.Certificate], authorities: tuple[x509.Certificate, ...], now: int
) -> list[x509.Certificate]:
    """The path from the leaf to one of the domain's own authorities (RFC 5280, section 6)."""
    authority = (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
        .require_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, None)
    )
    workload = verification.ExtensionPolicy.permit_all().require_present(
        x509.KeyUsage, verification.Criticality.CRITICAL, None
    )
    policy = (
        verification.PolicyBuilder()
        .store(verification.Store(list(authorities)))
        .time(datetime.datetime.fromtimestamp(now, datetime.UTC))
        .max_chain_depth(MAX_DEPTH)
        .extension_policies(ca_policy=authority, ee_policy=workload)
    )
    try:
        return policy.build_client_verifier().verify(leaf, others).chain
    except verification.VerificationError:
        raise IdentityError(
            CHAIN_UNTRUSTED,
            "The chain does not lead, now, to an authority of its own trust domain by signatures that count.",
            field="certificate",
            hint="Check its dates, its intermediates, and the bundle of the trust domain.",
        ) from None


def _signs_for(certificate: x509.Certificate, trust_domain: str) -> None:
    """Section 3: an authority that says whose it is says that it is this trust domain's."""
    _strong(certificate)
    value = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    if not value.key_cert_sign:
        raise _unfit("an authority in its path may not sign certificates")
    if any(spiffe.parse(name) != spiffe.SpiffeId(trust_domain, "") for name in _uris(certificate)):
        raise IdentityError(
            CHAIN_UNTRUSTED, "An authority in the chain is that of another trust domain.", field="certificate"
        )


def _unfit(why: str) -> IdentityError:
    return IdentityError(LEAF_UNFIT, f"The certificate is refused: {why}.", field="certificate")
