"""What can be wrong with a policy bundle or with a question put to it."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError

UNREADABLE = Code("policy.unreadable", Kind.NOT_FOUND)
UNKNOWN_BUNDLE = Code("policy.unknown_bundle", Kind.NOT_FOUND)
BAD_LAYOUT = Code("policy.bad_layout", Kind.INVALID)
BAD_MANIFEST = Code("policy.bad_manifest", Kind.INVALID)
BAD_SCHEMA = Code("policy.bad_schema", Kind.INVALID)
BAD_SYNTAX = Code("policy.bad_syntax", Kind.INVALID)
BAD_TYPES = Code("policy.bad_types", Kind.INVALID)
BAD_ANNOTATION = Code("policy.bad_annotation", Kind.INVALID)
DUPLICATE_ID = Code("policy.duplicate_id", Kind.CONFLICT)
BAD_CASE = Code("policy.bad_case", Kind.INVALID)
TOO_LARGE = Code("policy.too_large", Kind.TOO_LARGE)
TOO_COMPLEX = Code("policy.too_complex", Kind.TOO_LARGE)
ROLLED_BACK = Code("policy.rolled_back", Kind.CONFLICT)
BAD_QUERY = Code("policy.bad_query", Kind.INVALID)
CASES_FAIL = Code("policy.cases_fail", Kind.UNPROCESSABLE)
UNSIGNED = Code("policy.unsigned", Kind.UNPROCESSABLE)
BAD_SIGNATURE = Code("policy.bad_signature", Kind.DENIED)
WRONG_SIGNER = Code("policy.wrong_signer", Kind.DENIED)


class PolicyError(RingfenceError):
    """A bundle that must not decide, or a question that cannot be asked; `field` is `file:line` or the value's name."""
