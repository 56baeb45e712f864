"""What storing in a TPM needs, inside the worker: a storage primary, sessions, and the numbers of its refusals.

`tss` is the module tpm2_pytss, `tpm` its ESAPI; neither carries type information that could be named here. Section
numbers are those of the TPM 2.0 Library Specification, Part 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ringfence.attestation.errors import TPM_OWNER, AttestationError

# Deterministic: the same TPM makes the same key from it, until its owner clears it. ECC takes milliseconds.
_PRIMARY: Final = "ecc256:aes128cfb"
_PRIMARY_ATTRIBUTES: Final = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"

# Response codes, section 6.6: format 1 has its number in bits 0 to 5 and 7, the rest says which parameter it is about.
HANDLE: Final = 0x8B
POLICY_FAIL: Final = 0x9D
AUTH_FAILURES: Final = (0x8E, 0xA2)  # with and without protection against guessing
NV_DEFINED: Final = 0x14C
_FORMAT_1: Final = 0x80
_TPM_LAYERS: Final = (0x00, 0x0B)
_MARSHALLING_LAYER: Final = 0x09


def failure(rc: int) -> int:
    """The TPM's number in a TSS2 response code, without parameter, handle or session; 0 where no TPM said it."""
    if rc >> 16 & 0xFF not in _TPM_LAYERS:
        return 0
    return rc & 0xBF if rc & _FORMAT_1 else rc & 0xFFFF


def about_an_argument(rc: int) -> bool:
    """Whether a response code says that a structure given to the TPM is not what it must be."""
    layer = rc >> 16 & 0xFF
    return layer == _MARSHALLING_LAYER or (layer in _TPM_LAYERS and bool(rc & _FORMAT_1))


@contextmanager
def asking_the_owner(tss: Any) -> Iterator[None]:
    """Around a command that the owner hierarchy authorises: attestation.tpm_owner where it does not."""
    try:
        yield
    except tss.TSS2_Exception as error:
        if failure(error.rc) in AUTH_FAILURES:
            raise AttestationError(
                TPM_OWNER,
                "The TPM's owner hierarchy has another authorisation value than the one that was given.",
                hint="Give the owner's authorisation value; to seal keys, leave the owner hierarchy without one.",
            ) from None
        raise


@contextmanager
def storage_primary(tss: Any, tpm: Any, hierarchy: Any) -> Iterator[tuple[Any, bytes]]:
    """The storage key of `hierarchy`, whose authorisation value must be empty, and the key's name."""
    template = tss.TPM2B_PUBLIC.parse(_PRIMARY, objectAttributes=_PRIMARY_ATTRIBUTES)
    with asking_the_owner(tss):
        handle, public, *_ = tpm.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template, primary_handle=hierarchy)
    try:
        yield handle, bytes(public.get_name())
    finally:
        tpm.flush_context(handle)


@contextmanager
def session(tss: Any, tpm: Any, kind: Any, salted_to: Any, hidden: Any) -> Iterator[Any]:
    """A session whose key only the TPM that holds `salted_to` can know; ESYS_TR.NONE gives one without a salt.

    `hidden` says which first parameter is encrypted on its way: DECRYPT that of the command, ENCRYPT the answer's.
    """
    handle = tpm.start_auth_session(
        tpm_key=salted_to,
        bind=tss.ESYS_TR.NONE,
        session_type=kind,
        symmetric="aes128cfb",
        auth_hash=tss.TPM2_ALG.SHA256,
    )
    try:
        tpm.trsess_set_attributes(handle, tss.TPMA_SESSION.CONTINUESESSION | hidden)
        yield handle
    finally:
        tpm.flush_context(handle)
