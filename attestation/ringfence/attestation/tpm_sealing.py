"""Sealing and opening a short secret, inside the TPM worker (TPM 2.0 Library, Part 3, sections 12 and 23)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ringfence.attestation.errors import TPM_PCR_BANK, AttestationError
from ringfence.attestation.tpm_messages import SealAnswer, SealRequest, Unopened, UnsealAnswer, UnsealRequest
from ringfence.attestation.tpm_sessions import (
    AUTH_FAILURES,
    POLICY_FAIL,
    about_an_argument,
    failure,
    session,
    storage_primary,
)

# `noda`: the authorisation value is no password that could be guessed, and one wrong file must not lock the TPM out.
# Without `userwithauth` only the policy opens the object.
_ATTRIBUTES: Final = "fixedtpm|fixedparent|noda"


def seal(tss: Any, tpm: Any, request: SealRequest) -> SealAnswer:
    """A sealed data object under the owner's storage primary; its policy takes the auth value and the PCRs."""
    _check_bank(tss, tpm, request.pcrs)
    with storage_primary(tss, tpm, tss.ESYS_TR.OWNER) as (parent, name):
        with _policy(tss, tpm, parent, request.pcrs) as policy:
            digest = bytes(tpm.policy_get_digest(policy))
        template = tss.TPM2B_PUBLIC.parse("keyedhash", objectAttributes=_ATTRIBUTES, authPolicy=digest)
        content = tss.TPMS_SENSITIVE_CREATE(userAuth=request.auth, data=tss.TPM2B_SENSITIVE_DATA(request.secret))
        with session(tss, tpm, tss.TPM2_SE.HMAC, parent, tss.TPMA_SESSION.DECRYPT) as hidden:
            private, public, *_ = tpm.create(parent, tss.TPM2B_SENSITIVE_CREATE(content), template, session1=hidden)
    return SealAnswer(parent=name, public=public.publicArea.marshal(), private=bytes(private))


def unseal(tss: Any, tpm: Any, request: UnsealRequest) -> UnsealAnswer | Unopened:
    """The secret of a sealed data object, encrypted on its way out of the TPM; or why it does not open."""
    with storage_primary(tss, tpm, tss.ESYS_TR.OWNER) as (parent, name):
        if name != request.parent:
            return Unopened(why="parent")
        item = _loaded(tss, tpm, parent, request)
        if item is None:
            return Unopened(why="altered")
        try:
            tpm.tr_set_auth(item, request.auth)
            with _policy(tss, tpm, parent, request.pcrs) as policy:
                return UnsealAnswer(secret=bytes(tpm.unseal(item, session1=policy)))
        except tss.TSS2_Exception as error:
            if failure(error.rc) in AUTH_FAILURES:
                return Unopened(why="auth")
            if failure(error.rc) == POLICY_FAIL:
                return Unopened(why="pcrs")
            raise
        finally:
            tpm.flush_context(item)


def _check_bank(tss: Any, tpm: Any, pcrs: tuple[int, ...]) -> None:
    """A PCR of a bank that is not allocated has no value, and a policy over nothing always holds."""
    if not pcrs:
        return
    # The value owns what its fields point into.
    _, capability = tpm.get_capability(tss.TPM2_CAP.PCRS, 0)
    for bank in capability.data.assignedPCR:
        if bank.hash == tss.TPM2_ALG.SHA256:
            held = int.from_bytes(bytes(bank.pcrSelect)[: bank.sizeofSelect], "little")
            if all(held >> pcr & 1 for pcr in pcrs):
                return
    raise AttestationError(
        TPM_PCR_BANK,
        "The TPM keeps no SHA-256 value of a PCR that the key is to be bound to.",
        hint="Allocate the SHA-256 bank in the firmware's settings, or name no PCR.",
    )


@contextmanager
def _policy(tss: Any, tpm: Any, parent: Any, pcrs: tuple[int, ...]) -> Iterator[Any]:
    with session(tss, tpm, tss.TPM2_SE.POLICY, parent, tss.TPMA_SESSION.ENCRYPT) as policy:
        tpm.policy_auth_value(policy)
        if pcrs:
            tpm.policy_pcr(policy, b"", "sha256:" + ",".join(map(str, pcrs)))
        yield policy


def _loaded(tss: Any, tpm: Any, parent: Any, request: UnsealRequest) -> Any | None:
    """The object's handle, or None for bytes that this parent did not make."""
    try:
        public, _ = tss.TPMT_PUBLIC.unmarshal(request.public)
        return tpm.load(parent, tss.TPM2B_PRIVATE(request.private), tss.TPM2B_PUBLIC(public))
    except tss.TSS2_Exception as error:
        if about_an_argument(error.rc):
            return None
        raise
