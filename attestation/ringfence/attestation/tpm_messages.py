"""What the attester and its TPM worker say to each other: one JSON request on stdin, one JSON answer on stdout."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from ringfence.attestation.evidence import Pcr


class QuoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="quote"):
    """Quote the boot PCRs over 32 bytes of qualifying data; the worker ends itself after `lifetime_s` seconds."""

    tcti: str
    lifetime_s: float
    qualifying_data: bytes


class AkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="ak"):
    """Read the AK's TPMT_PUBLIC."""

    tcti: str
    lifetime_s: float


class QuoteAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="quote"):
    """A quote with all that is needed to verify it; fields as in `TpmEvidence`."""

    quote: bytes
    signature: bytes
    ak_public: bytes
    pcrs: tuple[Pcr, ...]


class AkAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="ak"):
    """The AK's TPMT_PUBLIC."""

    ak_public: bytes


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="refusal"):
    """Why the TPM gave no answer; `code` names one of `errors.TPM_CODES`."""

    code: str
    message: str
    hint: str


Request: TypeAlias = QuoteRequest | AkRequest
Answer: TypeAlias = QuoteAnswer | AkAnswer | Refusal
