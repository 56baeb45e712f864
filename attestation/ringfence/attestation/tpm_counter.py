"""A log's counter in the TPM, inside the TPM worker: an NV counter, and beside it where it began and whose it is.

A TPM starts a new counter above the highest that it ever had, so that removing one and making another turns nothing
back (TPM 2.0 Library, Part 3, TPM2_NV_Increment). Where it began must not lie on the disk, which is what the counter
is there to check: it is written once into a second index, which is then locked until it is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from ringfence.attestation import errors
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.tpm_messages import CountAnswer, CountRequest, DefineRequest, Removed, RemoveRequest
from ringfence.attestation.tpm_sessions import (
    AUTH_FAILURES,
    HANDLE,
    NV_DEFINED,
    asking_the_owner,
    failure,
    session,
    storage_primary,
)

_COUNT_SIZE: Final = 8
_BEGAN_SIZE: Final = _COUNT_SIZE + 32


def define(tss: Any, tpm: Any, request: DefineRequest) -> CountAnswer:
    """Makes a counter that shows 0; what was begun is undone where the TPM refuses a later step."""
    tpm.tr_set_auth(tss.ESYS_TR.OWNER, request.owner_auth)
    kinds = _kinds(tss)
    made: list[Any] = []
    try:
        for offset, (attributes, size, _) in enumerate(kinds):
            made.append(_define(tss, tpm, request, request.index + offset, attributes, size))
        counter, beginning = made
        with _keyed(tss, tpm) as keyed:
            # A counter has no value before its first increment.
            tpm.nv_increment(counter, session1=keyed)
            began = bytes(tpm.nv_read(counter, _COUNT_SIZE, session1=keyed))
            tpm.nv_write(beginning, began + request.log, session1=keyed)
            tpm.nv_write_lock(beginning, session1=keyed)
    except (AttestationError, tss.TSS2_Exception):
        for index in made:
            _undefine(tss, tpm, index)
        raise
    return CountAnswer(value=0)


def count(tss: Any, tpm: Any, request: CountRequest) -> CountAnswer:
    """How often the counter was incremented since it was made, after one more increment where that is asked for.

    The TPM's answers carry a MAC under the authorisation value, so nobody on the way to the TPM can change them.
    """
    counter, beginning = (_opened(tss, tpm, request, offset) for offset in range(2))
    try:
        with _keyed(tss, tpm) as keyed:
            held = bytes(tpm.nv_read(beginning, _BEGAN_SIZE, session1=keyed))
            if held[_COUNT_SIZE:] != request.log:
                raise _foreign(request.index, "it is the counter of another log")
            if request.increment:
                tpm.nv_increment(counter, session1=keyed)
            now = int.from_bytes(bytes(tpm.nv_read(counter, _COUNT_SIZE, session1=keyed)), "big")
    except tss.TSS2_Exception as error:
        if failure(error.rc) in AUTH_FAILURES:
            raise _foreign(request.index, "it has another authorisation value") from None
        raise
    return CountAnswer(value=now - int.from_bytes(held[:_COUNT_SIZE], "big"))


def remove(tss: Any, tpm: Any, request: RemoveRequest) -> Removed:
    """Removes both indices, or the one that there is."""
    tpm.tr_set_auth(tss.ESYS_TR.OWNER, request.owner_auth)
    found = [index for offset in range(2) if (index := _found(tss, tpm, request.index + offset)) is not None]
    if not found:
        raise _missing(request.index)
    for index in found:
        _undefine(tss, tpm, index)
    return Removed()


def _kinds(tss: Any) -> tuple[tuple[int, int, int], ...]:
    """TPMA_NV as defined, size, and TPMA_NV as finished, of the counter and of its beginning (Part 2, section 13.4).

    Whoever has the authorisation value reads and writes, and nobody else, not even the owner. It is random, so it
    needs no protection against guessing, by which one wrong file could lock the TPM for all. Neither index is orderly:
    such a counter leaps forward where the power fails, and then the log would be taken for one that was cut back.
    """
    attribute = tss.TPMA_NV
    keyed = attribute.AUTHREAD | attribute.AUTHWRITE | attribute.NO_DA
    counter = keyed | tss.TPM2_NT.COUNTER << attribute.TPM2_NT_SHIFT
    beginning = keyed | attribute.WRITEDEFINE
    return (
        (int(counter), _COUNT_SIZE, int(counter | attribute.WRITTEN)),
        (int(beginning), _BEGAN_SIZE, int(beginning | attribute.WRITTEN | attribute.WRITELOCKED)),
    )


def _define(tss: Any, tpm: Any, request: DefineRequest, index: int, attributes: int, size: int) -> Any:
    area = tss.TPMS_NV_PUBLIC(nvIndex=index, nameAlg=tss.TPM2_ALG.SHA256, attributes=attributes, dataSize=size)
    try:
        with _salted(tss, tpm) as salted, asking_the_owner(tss):
            return tpm.nv_define_space(request.auth, tss.TPM2B_NV_PUBLIC(area), session1=salted)
    except tss.TSS2_Exception as error:
        if failure(error.rc) == NV_DEFINED:
            raise AttestationError(
                errors.COUNTER_EXISTS,
                f"The TPM has something at the index {index:#010x} already.",
                hint="Choose another index, or remove the counter that is there, if no log needs it.",
            ) from None
        raise


def _undefine(tss: Any, tpm: Any, index: Any) -> None:
    with _salted(tss, tpm) as salted, asking_the_owner(tss):
        tpm.nv_undefine_space(index, session1=salted)


def _opened(tss: Any, tpm: Any, request: CountRequest, offset: int) -> Any:
    """The index, if it is what `define` makes; the session's MAC covers what is checked here."""
    handle = _found(tss, tpm, request.index + offset)
    if handle is None:
        raise _missing(request.index) if offset == 0 else _foreign(request.index, "its definition was not finished")
    found, _ = tpm.nv_read_public(handle)
    _, size, finished = _kinds(tss)[offset]
    if (int(found.nvPublic.attributes), found.nvPublic.dataSize) != (finished, size):
        raise _foreign(request.index, "it is not what Ringfence makes, or its definition was not finished")
    tpm.tr_set_auth(handle, request.auth)
    return handle


def _found(tss: Any, tpm: Any, index: int) -> Any | None:
    try:
        return tpm.tr_from_tpmpublic(index)
    except tss.TSS2_Exception as error:
        if failure(error.rc) == HANDLE:
            return None
        raise


def _keyed(tss: Any, tpm: Any) -> AbstractContextManager[Any]:
    """A session that proves and checks knowledge of the authorisation value."""
    return session(tss, tpm, tss.TPM2_SE.HMAC, tss.ESYS_TR.NONE, tss.TPMA_SESSION(0))


@contextmanager
def _salted(tss: Any, tpm: Any) -> Iterator[Any]:
    """A session for the owner that hides a new authorisation value; its salt needs no key of the owner's."""
    with (
        storage_primary(tss, tpm, tss.ESYS_TR.NULL) as (key, _),
        session(tss, tpm, tss.TPM2_SE.HMAC, key, tss.TPMA_SESSION.DECRYPT) as salted,
    ):
        yield salted


def _missing(index: int) -> AttestationError:
    return AttestationError(
        errors.COUNTER_MISSING,
        f"The TPM has no counter at the index {index:#010x}.",
        hint="Use the TPM that the counter was made in. If it was cleared, start a new log with a new counter.",
    )


def _foreign(index: int, why: str) -> AttestationError:
    return AttestationError(
        errors.COUNTER_FOREIGN,
        f"What the TPM has at the index {index:#010x} is not this log's counter: {why}.",
        hint="Name the counter file that was made for this log.",
    )
