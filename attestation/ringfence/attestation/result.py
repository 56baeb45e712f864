"""The attestation result: what a verifier says of a host, as an EAR in a JWT that names the agent's key.

Source: draft-ietf-rats-ear (EAT Attestation Results) with the profile below, RFC 7519 (JWT), RFC 7800 (`cnf`), and the
AKP key type of the JOSE drafts for ML-DSA and its composites. One algorithm is accepted and it is pinned here: the
token's own `alg` only ever confirms it. Claims beyond EAR's are named `ringfence.*`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, overload

import jwt
import msgspec
from jwt.algorithms import Algorithm
from msgspec import Meta

from ringfence.attestation import errors
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.evidence import KeyId
from ringfence.attestation.verifier import Appraisal, Status
from ringfence.crypto import COMPOSITE, CryptoError, Signer, key_id

ALGORITHM: Literal["ML-DSA-65-Ed25519"] = "ML-DSA-65-Ed25519"
TYPE = "ear+jwt"
PROFILE: Literal["tag:github.com,2023:veraison/ear"] = "tag:github.com,2023:veraison/ear"
MAX_TOKEN = 32 * 1024
MAX_LIFETIME_S = 3600
MAX_SKEW_S = 5
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

# Trustworthiness claims of draft-ietf-rats-ar4si: instance-identity 2 is a recognised instance, executables 3 a boot
# of approved executables only, 33 unrecognised ones, 96 forbidden ones; 0 claims nothing.
_VECTORS = {
    Status.AFFIRMING: {"instance-identity": 2, "executables": 3},
    Status.WARNING: {"instance-identity": 2, "executables": 33},
    Status.NONE: {"instance-identity": 0, "executables": 0},
    Status.CONTRAINDICATED: {"instance-identity": 2, "executables": 96},
}


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """What `issuer` (a verifier's key id) says of `subject` (the key id of `agent_key`) between two moments.

    `score` is 0 to 100; `issued_at` and `expires_at` are seconds since the epoch, at most an hour apart;
    `evidence_digest` is the SHA-256 of the evidence in hex. Raises `attestation.result_malformed` for other values
    and `attestation.result_key_mismatch` where `subject` is not the id of `agent_key`.
    """

    issuer: str
    subject: str
    agent_key: bytes
    status: Status
    score: int
    reasons: tuple[str, ...]
    issued_at: int
    expires_at: int
    evidence_digest: str

    def __post_init__(self) -> None:
        if key_id(self.agent_key) != self.subject:
            raise AttestationError(
                errors.RESULT_KEY_MISMATCH,
                f"The key that the result confirms is not the key of its subject {self.subject}.",
                field="cnf",
            )
        if not 0 <= self.score <= 100:
            raise _malformed(f"a trust score of {self.score} is outside 0 to 100")
        if not 0 < self.expires_at - self.issued_at <= MAX_LIFETIME_S:
            raise _malformed(f"it lives for {self.expires_at - self.issued_at} s, not for 1 to {MAX_LIFETIME_S}")


def conclude(appraisal: Appraisal, *, issuer: str, lifetime_s: int) -> AttestationResult:
    """The result of an appraisal, valid for `lifetime_s` seconds from the appraisal on; `issuer` is a key id."""
    return AttestationResult(
        issuer=issuer,
        subject=key_id(appraisal.agent_key),
        agent_key=appraisal.agent_key,
        status=appraisal.status,
        score=appraisal.status.score,
        reasons=appraisal.reasons,
        issued_at=appraisal.appraised_at,
        expires_at=appraisal.appraised_at + lifetime_s,
        evidence_digest=appraisal.evidence_digest,
    )


def issue(result: AttestationResult, signer: Signer) -> str:
    """The result as a signed token; raises `attestation.result_verifier_unknown` unless the signer is its issuer."""
    if signer.key_id != result.issuer:
        raise AttestationError(
            errors.RESULT_VERIFIER_UNKNOWN,
            f"The signer {signer.key_id} is not the issuer {result.issuer}.",
            field="issuer",
        )
    claims = _Claims(
        eat_profile=PROFILE,
        iss=result.issuer,
        sub=result.subject,
        iat=result.issued_at,
        exp=result.expires_at,
        verifier_id=_VerifierId(developer="Ringfence", build="ringfence-verifier-1"),
        submods=_Submodules(
            host=_HostAppraisal(
                status=result.status,
                vector=_VECTORS[result.status],
                score=result.score,
                reasons=result.reasons,
                evidence_digest=result.evidence_digest,
            )
        ),
        cnf=_Confirmation(jwk=_Jwk(**_CompositeAlgorithm.to_jwk(result.agent_key, as_dict=True))),
    )
    headers = {"typ": TYPE, "kid": signer.key_id}
    # PyJWT types keys as strings and key objects; ours is a port that signs without showing its key.
    key: Any = signer
    return _jws().encode(msgspec.json.encode(claims), key, algorithm=ALGORITHM, headers=headers)


def check(token: str, *, verifiers: Mapping[str, bytes], now: int) -> AttestationResult:
    """The result in `token`, once its signature holds under one of the pinned `verifiers` (key id to public key).

    Raises `AttestationError`: `attestation.result_malformed`, `_algorithm`, `_verifier_unknown`, `_signature`,
    `_key_mismatch`, `_not_yet_valid` or `_expired`.
    """
    if len(token) > MAX_TOKEN or not _COMPACT.fullmatch(token):
        raise _malformed(f"it is not three base64url segments of at most {MAX_TOKEN} characters")
    jws = _jws()
    try:
        header = jws.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise _malformed("its header cannot be read") from None
    if header.get("alg") != ALGORITHM:
        raise AttestationError(
            errors.RESULT_ALGORITHM, f"The result is not signed with {ALGORITHM}, the only one accepted.", field="alg"
        )
    if header.get("typ") != TYPE or header.keys() != {"alg", "typ", "kid"}:
        raise _malformed(f"its header is not that of an {TYPE}")
    issuer = header["kid"]
    if issuer not in verifiers:
        raise AttestationError(
            errors.RESULT_VERIFIER_UNKNOWN,
            "The result is signed by a verifier that is not pinned.",
            field="kid",
            hint="Pin the verifier's key; nothing is trusted on first use.",
        )
    try:
        payload = jws.decode(token, verifiers[issuer], algorithms=[ALGORITHM])
    except jwt.InvalidTokenError:
        raise AttestationError(
            errors.RESULT_SIGNATURE, "The result's signature does not hold under the pinned key.", field="signature"
        ) from None
    result = _read(payload)
    if result.issuer != issuer:
        raise _malformed("its issuer is not the verifier that signed it")
    if result.issued_at > now + MAX_SKEW_S:
        raise AttestationError(
            errors.RESULT_NOT_YET_VALID,
            f"The result is issued {result.issued_at - now} s in the future.",
            field="iat",
            hint="Compare the clocks of this host and of the verifier.",
        )
    if result.expires_at <= now:
        raise AttestationError(
            errors.RESULT_EXPIRED,
            f"The result expired {now - result.expires_at} s ago.",
            field="exp",
            hint="Attest the host again.",
        )
    return result


def digest(token: str) -> str:
    """SHA-256 of the token in hex: the attestation digest that grants and receipts carry."""
    return hashlib.sha256(token.encode()).hexdigest()


def _read(payload: bytes) -> AttestationResult:
    try:
        claims = msgspec.json.decode(payload, type=_Claims)
        agent_key: bytes = _CompositeAlgorithm.from_jwk({"pub": claims.cnf.jwk.pub})
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error) as error:
        raise _malformed(f"its claims are not those of the profile ({error})") from None
    host = claims.submods.host
    if host.vector != _VECTORS[host.status]:
        raise _malformed("its trustworthiness vector does not fit its status")
    return AttestationResult(
        issuer=claims.iss,
        subject=claims.sub,
        agent_key=agent_key,
        status=host.status,
        score=host.score,
        reasons=host.reasons,
        issued_at=claims.iat,
        expires_at=claims.exp,
        evidence_digest=host.evidence_digest,
    )


def _malformed(why: str) -> AttestationError:
    return AttestationError(errors.RESULT_MALFORMED, f"The attestation result is refused: {why}.", field="result")


class _CompositeAlgorithm(Algorithm):
    """The composite signature as an algorithm of PyJWT: a `Signer` signs, a public key's bytes verify."""

    def prepare_key(self, key: Any) -> Any:
        return key

    def sign(self, msg: bytes, key: Signer) -> bytes:
        return key.sign(msg)

    def verify(self, msg: bytes, key: bytes, sig: bytes) -> bool:
        try:
            COMPOSITE.verify(key, msg, sig)
        except CryptoError:
            return False
        return True

    @overload
    @staticmethod
    def to_jwk(key_obj: Any, as_dict: Literal[True]) -> dict[str, Any]: ...

    @overload
    @staticmethod
    def to_jwk(key_obj: Any, as_dict: Literal[False] = False) -> str: ...

    @staticmethod
    def to_jwk(key_obj: Any, as_dict: bool = False) -> dict[str, Any] | str:
        encoded = base64.urlsafe_b64encode(key_obj).rstrip(b"=").decode("ascii")
        jwk = {"kty": "AKP", "alg": ALGORITHM, "pub": encoded}
        return jwk if as_dict else msgspec.json.encode(jwk).decode()

    @staticmethod
    def from_jwk(jwk: str | dict[str, Any]) -> bytes:
        fields: dict[str, Any] = msgspec.json.decode(jwk) if isinstance(jwk, str) else jwk
        return base64.b64decode(fields["pub"] + "=" * (-len(fields["pub"]) % 4), altchars=b"-_", validate=True)


def _jws() -> jwt.PyJWS:
    """A JWS codec that knows the composite algorithm and nothing else, not even `none`."""
    codec = jwt.PyJWS(algorithms=[])
    codec.register_algorithm(ALGORITHM, _CompositeAlgorithm())
    return codec


class _VerifierId(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    developer: str
    build: str


class _Jwk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kty: Literal["AKP"]
    alg: Literal["ML-DSA-65-Ed25519"]
    pub: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,4096}$")]


class _Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    jwk: _Jwk


class _HostAppraisal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status: Status = msgspec.field(name="ear.status")
    vector: dict[str, int] = msgspec.field(name="ear.trustworthiness-vector")
    score: int = msgspec.field(name="ringfence.trust-score")
    reasons: tuple[str, ...] = msgspec.field(name="ringfence.reasons")
    evidence_digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] = msgspec.field(name="ringfence.evidence-digest")


class _Submodules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: _HostAppraisal


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    eat_profile: Literal["tag:github.com,2023:veraison/ear"]
    iss: KeyId
    sub: KeyId
    iat: int
    exp: int
    verifier_id: _VerifierId = msgspec.field(name="ear.verifier-id")
    submods: _Submodules
    cnf: _Confirmation
