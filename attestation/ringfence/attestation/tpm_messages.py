"""What a process and its TPM worker say to each other: one JSON request on stdin, one JSON answer on stdout."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ringfence.attestation.evidence import Pcr


class _Secret(msgspec.Struct, frozen=True):
    """A message that carries a secret, which therefore shows in no repr."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class QuoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="quote"):
    """Quote the boot PCRs over 32 bytes of qualifying data; the worker ends itself after `lifetime_s` seconds."""

    tcti: str
    lifetime_s: float
    qualifying_data: bytes


class AkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="ak"):
    """Read the AK's TPMT_PUBLIC."""

    tcti: str
    lifetime_s: float


class SealRequest(_Secret, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="seal"):
    """Seal `secret` (at most 128 bytes) under the storage primary.

    It opens with `auth` (32 bytes, or none) while the PCRs `pcrs` of the SHA-256 bank hold what they hold now.
    """

    tcti: str
    lifetime_s: float
    secret: bytes
    auth: bytes
    pcrs: tuple[int, ...]


class UnsealRequest(_Secret, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="unseal"):
    """Open what a `SealAnswer` holds; `auth` and `pcrs` as they were given for sealing."""

    tcti: str
    lifetime_s: float
    parent: bytes
    public: bytes
    private: bytes
    auth: bytes
    pcrs: tuple[int, ...]


class DefineRequest(_Secret, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="define"):
    """Make a counter at the NV index `index`, for the log whose id has the SHA-256 `log`, under `auth` (32 bytes)."""

    tcti: str
    lifetime_s: float
    index: int
    auth: bytes
    log: bytes
    owner_auth: bytes


class CountRequest(_Secret, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="count"):
    """Read the counter that a `DefineRequest` made, after incrementing it where `increment` says so."""

    tcti: str
    lifetime_s: float
    index: int
    auth: bytes
    log: bytes
    increment: bool


class RemoveRequest(_Secret, frozen=True, forbid_unknown_fields=True, tag_field="ask", tag="remove"):
    """Remove the counter at `index`, also one whose definition was cut short."""

    tcti: str
    lifetime_s: float
    index: int
    owner_auth: bytes


class QuoteAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="quote"):
    """A quote with all that is needed to verify it; fields as in `TpmEvidence`."""

    quote: bytes
    signature: bytes
    ak_public: bytes
    pcrs: tuple[Pcr, ...]


class AkAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="ak"):
    """The AK's TPMT_PUBLIC."""

    ak_public: bytes


class SealAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="seal"):
    """The sealed object: its parent's name, its TPMT_PUBLIC, and its TPM2B_PRIVATE without the size."""

    parent: bytes
    public: bytes
    private: bytes


class UnsealAnswer(_Secret, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="unseal"):
    """What was sealed."""

    secret: bytes


class Unopened(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="unopened"):
    """Why the TPM does not open a sealed object."""

    why: Literal["parent", "altered", "auth", "pcrs"]


class CountAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="count"):
    """How often the counter was incremented since it was made."""

    value: int


class Removed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="removed"):
    """The counter is gone."""


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="answer", tag="refusal"):
    """Why the TPM gave no answer; `code` names one of `errors.TPM_CODES`."""

    code: str
    message: str
    hint: str


Request: TypeAlias = (
    QuoteRequest | AkRequest | SealRequest | UnsealRequest | DefineRequest | CountRequest | RemoveRequest
)
Answer: TypeAlias = QuoteAnswer | AkAnswer | SealAnswer | UnsealAnswer | Unopened | CountAnswer | Removed | Refusal
