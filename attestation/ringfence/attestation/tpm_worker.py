"""The TPM worker: the only process that touches the TPM, for one request, so that a hung TPM hangs nobody else.

Run as `python -m ringfence.attestation.tpm_worker`. Nothing but this module loads the TPM software stack, and it does
so only here, in the child process, and hands it to those that seal and count.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import stat
import sys
from typing import Any

import msgspec

from ringfence.attestation import errors, tpm_counter, tpm_sealing
from ringfence.attestation.address import parse_address
from ringfence.attestation.errors import AttestationError
from ringfence.attestation.evidence import Pcr
from ringfence.attestation.tpm_messages import (
    AkAnswer,
    AkRequest,
    Answer,
    CountRequest,
    DefineRequest,
    QuoteAnswer,
    QuoteRequest,
    Refusal,
    RemoveRequest,
    Request,
    SealRequest,
    UnsealRequest,
)

_BOOT_PCRS = "sha256:0,1,2,3,4,5,6,7"
# An AK: a restricted signing key that never leaves its TPM. An ECC primary takes a TPM milliseconds, an RSA one
# seconds; under the endorsement hierarchy its quotes show the reset and restart counts.
_AK_ALGORITHM = "ecc256:ecdsa-sha256:null"
_AK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign"

# TSS2 response codes: the layer is in bits 16 to 23 (TCG TSS 2.0 Overview), TPM codes in Part 2, section 6.6.
_TPM_LAYERS = (0x00, 0x0B)
_TCTI_LAYER = 0x0A
_NOT_STARTED = 0x100
_LOCKED_OUT = 0x921
_NV_SPACE = 0x14B
_BUSY = (0x902, 0x903, 0x904, 0x905, 0x906, 0x908, 0x90A, 0x920, 0x922, 0x923)
_BUSY_ERRNO = (errno.EBUSY, errno.EAGAIN)


def main() -> int:
    """Answers the one request on standard input."""
    request: Request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    # The kernel ends this process even if it hangs inside the TPM and its parent is gone.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request.lifetime_s)
    answer: Answer
    try:
        check_address(request.tcti)
        answer = _ask_tpm(request)
    except AttestationError as refused:
        answer = Refusal(code=refused.code.name, message=refused.message, hint=refused.hint)
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


def check_address(tcti: str) -> None:
    """Raises unless `tcti` names a TPM device or socket that this user may open.

    The TPM software stack has one code for missing, denied and not-a-TPM; this looks first.
    """
    address = parse_address(tcti)
    path = address.path
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISCHR if address.kind == "device" else stat.S_ISSOCK)(mode):
            raise AttestationError(
                errors.TPM_UNREACHABLE, f"{path} is not a {'device' if address.kind == 'device' else 'socket'}."
            )
        if address.kind == "device":
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        elif not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    except OSError as error:
        raise _unopened(error, path) from None


def _unopened(error: OSError, path: str) -> AttestationError:
    if isinstance(error, FileNotFoundError):
        return AttestationError(
            errors.TPM_MISSING,
            f"There is no TPM at {path}.",
            hint="Switch the TPM on in the firmware's settings, or run this host as not attested.",
        )
    if isinstance(error, PermissionError):
        return AttestationError(
            errors.TPM_DENIED,
            f"This user may not open the TPM at {path}.",
            hint="Add the agent's user to the group that owns the device, usually tss.",
        )
    if error.errno in _BUSY_ERRNO:
        return AttestationError(
            errors.TPM_BUSY,
            f"Another program holds the TPM at {path}.",
            hint="Use the kernel's resource manager, device:/dev/tpmrm0.",
        )
    return AttestationError(errors.TPM_UNREACHABLE, f"The TPM at {path} cannot be opened: {error.strerror}.")


def _ask_tpm(request: Request) -> Answer:
    tss = _load_tss()
    try:
        with tss.ESAPI(request.tcti) as tpm:
            return _answered(tss, tpm, request)
    except tss.TSS2_Exception as error:
        raise explain(error.rc) from None


def _answered(tss: Any, tpm: Any, request: Request) -> Answer:
    match request:
        case SealRequest():
            return tpm_sealing.seal(tss, tpm, request)
        case UnsealRequest():
            return tpm_sealing.unseal(tss, tpm, request)
        case DefineRequest():
            return tpm_counter.define(tss, tpm, request)
        case CountRequest():
            return tpm_counter.count(tss, tpm, request)
        case RemoveRequest():
            return tpm_counter.remove(tss, tpm, request)
        case _:
            return _with_ak(tss, tpm, request)


def _load_tss() -> Any:
    try:
        return importlib.import_module("tpm2_pytss")
    except ImportError as error:
        raise AttestationError(
            errors.TPM_LIBRARY_MISSING,
            f"The TPM software stack cannot be loaded: {error}.",
            hint="Install Ringfence with the extra [tpm], and libtss2.",
        ) from None


def _with_ak(tss: Any, tpm: Any, request: QuoteRequest | AkRequest) -> Answer:
    template = tss.TPM2B_PUBLIC.parse(_AK_ALGORITHM, objectAttributes=_AK_ATTRIBUTES)
    ak, public, *_ = tpm.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template, primary_handle=tss.ESYS_TR.ENDORSEMENT)
    try:
        ak_public: bytes = public.publicArea.marshal()
        if isinstance(request, AkRequest):
            return AkAnswer(ak_public=ak_public)
        return _quote(tss, tpm, ak, ak_public, request)
    finally:
        # Without a resource manager a TPM has three slots, and a killed worker is the only one to leave one taken.
        tpm.flush_context(ak)


def _quote(tss: Any, tpm: Any, ak: Any, ak_public: bytes, request: QuoteRequest) -> QuoteAnswer:
    quoted, signature = tpm.quote(ak, _BOOT_PCRS, qualifying_data=tss.TPM2B_DATA(request.qualifying_data))
    _, selections, digests = tpm.pcr_read(_BOOT_PCRS)
    indices = [
        index
        for selection in selections
        for index in range(selection.sizeofSelect * 8)
        if selection.pcrSelect[index // 8] >> index % 8 & 1
    ]
    return QuoteAnswer(
        quote=bytes(quoted),
        signature=signature.marshal(),
        ak_public=ak_public,
        pcrs=tuple(Pcr(index, bytes(value)) for index, value in zip(indices, digests, strict=True)),
    )


def explain(rc: int) -> AttestationError:
    """The error that a TSS2 response code stands for."""
    layer, code = rc >> 16 & 0xFF, rc & 0xFFFF
    if layer == _TCTI_LAYER:
        return AttestationError(
            errors.TPM_UNREACHABLE,
            f"What is behind the address does not answer as a TPM (code {rc:#x}).",
            hint="Check that the address names a TPM 2.0 and that it is running.",
        )
    if layer in _TPM_LAYERS and code == _NOT_STARTED:
        return AttestationError(
            errors.TPM_NOT_STARTED,
            "The TPM was not started: nobody sent TPM2_Startup.",
            hint="A software TPM needs --flags startup-clear; hardware is started by its firmware: power-cycle it.",
        )
    if layer in _TPM_LAYERS and code == _LOCKED_OUT:
        return AttestationError(
            errors.TPM_LOCKED_OUT,
            "The TPM is locked out after failed authorisations.",
            hint="Wait for the lockout to end, or clear it with the lockout authorisation.",
        )
    if layer in _TPM_LAYERS and code == _NV_SPACE:
        return AttestationError(
            errors.TPM_FULL,
            "The TPM has no room for another index.",
            hint="Remove an index that nothing needs; `tpm2_getcap handles-nv-index` lists them.",
        )
    if layer in _TPM_LAYERS and code in _BUSY:
        return AttestationError(
            errors.TPM_BUSY,
            f"The TPM has no room or no time for this now (code {rc:#x}).",
            hint="Try again; use the kernel's resource manager, device:/dev/tpmrm0.",
        )
    return AttestationError(
        errors.TPM_FAILED,
        f"The TPM failed (code {rc:#x}).",
        hint="Look the code up with tpm2_rc_decode; if the TPM is in failure mode, power-cycle the host.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
