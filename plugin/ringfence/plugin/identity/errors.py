"""Error codes of the identity factors, of the directory and of approvals."""

from __future__ import annotations

from ringfence.errors import Code, Kind
from ringfence.plugin.errors import GateError


class IdentityError(GateError):
    """Evidence does not prove who somebody is, or what would tell cannot be read."""


# Any factor's evidence.
EVIDENCE_MALFORMED = Code("identity.evidence_malformed", Kind.INVALID)
EVIDENCE_TOO_LARGE = Code("identity.evidence_too_large", Kind.TOO_LARGE)
FACTOR_UNKNOWN = Code("identity.factor_unknown", Kind.INVALID)
FACTOR_DEADLINE = Code("identity.factor_deadline", Kind.DEADLINE)
FACTOR_ENDED = Code("identity.factor_ended", Kind.UNAUTHENTICATED)
NAME_UNSAFE = Code("identity.name_unsafe", Kind.INVALID)
CHANNEL_MISMATCH = Code("identity.channel_mismatch", Kind.UNAUTHENTICATED)

# What the factors say together.
NO_KEY_BOUND_FACTOR = Code("identity.no_key_bound_factor", Kind.UNAUTHENTICATED)
SUBJECT_UNKNOWN = Code("identity.subject_unknown", Kind.UNAUTHENTICATED)
SUBJECTS_CONFLICT = Code("identity.subjects_conflict", Kind.UNAUTHENTICATED)

# What the gateway reads to verify evidence.
SETTINGS_INVALID = Code("identity.settings_invalid", Kind.INVALID)
KEYS_MALFORMED = Code("identity.keys_malformed", Kind.INVALID)
KEYS_UNAVAILABLE = Code("identity.keys_unavailable", Kind.UNAVAILABLE)
FETCH_FAILED = Code("identity.fetch_failed", Kind.UNAVAILABLE)

# X.509-SVID.
CHAIN_UNTRUSTED = Code("identity.chain_untrusted", Kind.UNAUTHENTICATED)
LEAF_UNFIT = Code("identity.leaf_unfit", Kind.UNAUTHENTICATED)
KEY_WEAK = Code("identity.key_weak", Kind.UNAUTHENTICATED)
SPIFFE_ID_INVALID = Code("identity.spiffe_id_invalid", Kind.UNAUTHENTICATED)
TRUST_DOMAIN_UNKNOWN = Code("identity.trust_domain_unknown", Kind.UNAUTHENTICATED)

# Tokens.
TOKEN_ALGORITHM = Code("identity.token_algorithm", Kind.UNAUTHENTICATED)
TOKEN_TYPE = Code("identity.token_type", Kind.UNAUTHENTICATED)
TOKEN_KEY_UNKNOWN = Code("identity.token_key_unknown", Kind.UNAUTHENTICATED)
TOKEN_SIGNATURE = Code("identity.token_signature", Kind.UNAUTHENTICATED)
TOKEN_ISSUER = Code("identity.token_issuer", Kind.UNAUTHENTICATED)
TOKEN_AUDIENCE = Code("identity.token_audience", Kind.UNAUTHENTICATED)
TOKEN_TIME = Code("identity.token_time", Kind.UNAUTHENTICATED)
TOKEN_CONFIRMATION = Code("identity.token_confirmation", Kind.UNAUTHENTICATED)
PROOF_INVALID = Code("identity.proof_invalid", Kind.UNAUTHENTICATED)

# WebAuthn.
CREDENTIAL_UNKNOWN = Code("identity.credential_unknown", Kind.UNAUTHENTICATED)
CREDENTIAL_EXISTS = Code("identity.credential_exists", Kind.CONFLICT)
CREDENTIALS_FULL = Code("identity.credentials_full", Kind.EXHAUSTED)
CREDENTIALS_UNUSABLE = Code("identity.credentials_unusable", Kind.UNAVAILABLE)
CEREMONY_MISDIRECTED = Code("identity.ceremony_misdirected", Kind.UNAUTHENTICATED)
USER_NOT_VERIFIED = Code("identity.user_not_verified", Kind.UNAUTHENTICATED)
ASSERTION_SIGNATURE = Code("identity.assertion_signature", Kind.UNAUTHENTICATED)
ENROLMENT_REFUSED = Code("identity.enrolment_refused", Kind.DENIED)

# A device of the caller, and its behaviour.
DEVICE_REFUSED = Code("identity.device_refused", Kind.UNAUTHENTICATED)
BEHAVIOUR_UNFAMILIAR = Code("identity.behaviour_unfamiliar", Kind.UNAUTHENTICATED)

# The directory and approvals.
DIRECTORY_MALFORMED = Code("identity.directory_malformed", Kind.INVALID)
DIRECTORY_UNAVAILABLE = Code("identity.directory_unavailable", Kind.UNAVAILABLE)
APPROVAL_MALFORMED = Code("identity.approval_malformed", Kind.INVALID)
APPROVAL_REFUSED = Code("identity.approval_refused", Kind.DENIED)


def malformed(what: str, why: str, *, field: str) -> IdentityError:
    """The error for evidence that cannot be read."""
    return IdentityError(EVIDENCE_MALFORMED, f"{what} cannot be read: {why}.", field=field)


def too_large(what: str, size: int, most: int, *, field: str) -> IdentityError:
    """The error for evidence beyond its bound, raised before any of it is read."""
    return IdentityError(EVIDENCE_TOO_LARGE, f"{what} has {size} bytes, more than {most}.", field=field)
