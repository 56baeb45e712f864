"""The gateway's settings for identity factors, as its configuration embeds them. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ringfence.config import KeyId

Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2048)]
Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=604_800)]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")]
FactorName: TypeAlias = Literal["svid", "oidc", "device"]
JoseAlgorithm: TypeAlias = Literal["ES256", "ES384", "EdDSA", "PS256", "PS384", "RS256", "RS384"]


class SubjectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the map from subjects to principals. `subject` is in the factor's own terms.

    "svid": the SPIFFE id; "oidc": issuer, "#" and `sub`; "device": the id of the device's key. The other
    factors name principals themselves.
    """

    principal: Text
    factor: FactorName
    subject: Text


class SvidSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`bundles`: trust domain -> the file (PEM) with its authorities. `max_lifetime_s` is a leaf's longest life."""

    bundles: Annotated[dict[str, Path], Meta(min_length=1, max_length=64)]
    max_lifetime_s: Annotated[int, Meta(ge=60, le=2_592_000)] = 86_400
    remembered: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000


class KeySetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an issuer's keys (a JWK set) come from: exactly one of `file` and `url` (https).

    They are read again every `max_interval_s`, and for an unknown key id, but never more often than every
    `min_interval_s`; beyond `max_age_s` without a successful read they count no longer.
    """

    file: Path | None = None
    url: str = ""
    authorities: Path | None = None
    min_interval_s: Annotated[int, Meta(ge=1, le=3600)] = 30
    max_interval_s: Annotated[int, Meta(ge=1, le=86_400)] = 600
    max_age_s: Annotated[int, Meta(ge=1, le=604_800)] = 3600
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One issuer of access tokens, with everything pinned that a token must not choose.

    `proof_url` and `proof_method` are what a DPoP proof must name. `groups_claim` and `attribute_claims` (attribute ->
    claim) say which claims are groups and attributes; none are where they are empty.
    """

    issuer: Text
    audience: Text
    keys: KeySetSettings
    algorithms: Annotated[tuple[JoseAlgorithm, ...], Meta(min_length=1)] = ("ES256", "EdDSA")
    types: Annotated[tuple[str, ...], Meta(min_length=1)] = ("at+jwt",)
    max_lifetime_s: Annotated[int, Meta(ge=1, le=86_400)] = 3600
    leeway_s: Annotated[int, Meta(ge=0, le=120)] = 5
    proof_url: str = ""
    proof_method: str = "POST"
    proof_age_s: Annotated[int, Meta(ge=1, le=600)] = 60
    groups_claim: str = ""
    attribute_claims: dict[Name, Text] = {}


class WebAuthnSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Security keys and platform authenticators. `origins` are compared exactly; `rp_id` is the relying party's id.

    `allow_unattested` accepts enrolments that nobody vouches for; otherwise one of `authorities` (PEM) must have signed
    for the authenticator. An assertion proves its owner for `lifetime_s`.
    """

    rp_id: Text
    origins: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]
    credentials: Path
    lifetime_s: Seconds = 3600
    allow_unattested: bool = False
    authorities: Path | None = None


class DeviceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Callers' own devices: the key ids of the verifiers whose attestation results count, how good and how fresh."""

    verifiers: Annotated[tuple[KeyId, ...], Meta(min_length=1, max_length=16)]
    minimum: Literal["affirming", "warning"] = "affirming"
    max_age_s: Seconds = 300


class BehaviourSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`familiarity` from 0 to 100 is enough to count; it counts for `lifetime_s`."""

    familiarity: Annotated[int, Meta(ge=1, le=100)] = 70
    lifetime_s: Annotated[int, Meta(ge=1, le=3600)] = 300


class FileDirectorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="file"):
    """Principals' groups and attributes in a file, TOML or JSON by its ending."""

    path: Path
    refresh_s: Annotated[int, Meta(ge=1, le=3600)] = 5
    max_age_s: Seconds = 60


class ScimDirectorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="scim"):
    """A SCIM 2.0 server (RFC 7644). `token` is a file with the bearer token, readable by its owner alone.

    `principal` and `tenant` name SCIM attributes, as do the values of `attributes` (attribute -> SCIM attribute).
    """

    url: Text
    token: Path
    authorities: Path | None = None
    principal: Text = "userName"
    tenant: str = ""
    attributes: dict[Name, Text] = {}
    refresh_s: Annotated[int, Meta(ge=10, le=86_400)] = 300
    max_age_s: Seconds = 3600
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 60.0
    max_users: Annotated[int, Meta(ge=1, le=1_000_000)] = 100_000


class ApprovalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Break-glass approvals: the folder with the signed statements, and the group that its signers are in."""

    folder: Path
    group: Text = "approvers"


class IdentitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The identity factors that this gateway takes; a factor without settings is not taken."""

    deadline_s: Annotated[float, Meta(gt=0, le=30)] = 2.0
    subjects: tuple[SubjectSettings, ...] = ()
    svid: SvidSettings | None = None
    oidc: OidcSettings | None = None
    webauthn: WebAuthnSettings | None = None
    device: DeviceSettings | None = None
    behaviour: BehaviourSettings | None = None
    directory: FileDirectorySettings | ScimDirectorySettings | None = None
    approvals: ApprovalSettings | None = None
