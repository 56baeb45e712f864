"""The key store's sealer over a TPM: a copy of the disk opens nothing, nor does another machine or another boot.

The TPM seals a fresh AES-256 key, the secret lies beside it under AES-256-GCM: a TPM takes no more than 128 bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from ringfence.attestation.tpm_asking import DEFAULT_DEADLINE_S, GRACE_S, ask, refused
from ringfence.attestation.tpm_messages import SealAnswer, SealRequest, Unopened, UnsealAnswer, UnsealRequest
from ringfence.crypto import CryptoError, seal, unseal
from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.keystore.errors import UNSEALABLE, KeyStoreError

NAME: Final = "tpm"
LAST_PCR: Final = 15
"""Those above belong to a dynamic launch, or to anybody who wants to reset them (PC Client Profile, PCR attributes)."""
MIN_AUTH: Final = 16

_KEY_SIZE: Final = 32
# Constant, because each key seals once.
_NONCE: Final = bytes(12)
_ASSOCIATED_LABEL: Final = b"ringfence tpm sealed 1\0"
_AUTH_LABEL: Final = b"ringfence tpm authorisation 1\0"


class _Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies on the disk, as JSON. `parent` is the storage key's name, which tells one TPM from another."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    pcrs: tuple[Annotated[int, msgspec.Meta(ge=0, le=LAST_PCR)], ...]
    parent: Annotated[bytes, msgspec.Meta(max_length=66)]
    public: Annotated[bytes, msgspec.Meta(max_length=512)]
    private: Annotated[bytes, msgspec.Meta(max_length=1024)]
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class TpmSealer:
    """Seals under the storage key of the TPM at `tcti` (`device:/dev/tpmrm0`, `swtpm:path=/path`).

    `pcrs` bind new keys to the values that those PCRs of the SHA-256 bank have now; none binds to the TPM alone. Every
    process that may use the TPM and read the sealed file can open it, unless `auth`, at least 16 bytes that are hard
    to guess, is kept elsewhere; what is sealed with it opens with it alone. Each call starts a worker process and
    raises `AttestationError` with an `attestation.tpm_*` code where the TPM is out of reach.
    """

    tcti: str
    pcrs: tuple[int, ...] = ()
    auth: bytes = field(default=b"", repr=False)
    deadline_s: float = DEFAULT_DEADLINE_S
    random: Callable[[int], bytes] = field(default=os.urandom, repr=False)

    def __post_init__(self) -> None:
        if list(self.pcrs) != sorted({pcr for pcr in self.pcrs if 0 <= pcr <= LAST_PCR}):
            raise UsageError(BAD_ARGUMENT, f"PCRs are 0 to {LAST_PCR}, ascending, each once.", field="pcrs")
        if 0 < len(self.auth) < MIN_AUTH:
            raise UsageError(
                BAD_ARGUMENT,
                f"An authorisation value has at least {MIN_AUTH} bytes.",
                field="auth",
                hint="Draw 32 random bytes.",
            )

    @property
    def name(self) -> str:
        """What the index of a key store calls this sealer."""
        return NAME

    def seal(self, secret: bytes, associated: bytes) -> bytes:
        """`secret`, of any size, in a form that opens here alone, together with the same `associated`."""
        key = self.random(_KEY_SIZE)
        answer = ask(
            SealRequest(
                tcti=self.tcti,
                lifetime_s=self.deadline_s + GRACE_S,
                secret=key,
                auth=_auth_value(self.auth),
                pcrs=self.pcrs,
            ),
            self.deadline_s,
        )
        if not isinstance(answer, SealAnswer):
            raise refused(answer)
        blob = _Blob(1, self.pcrs, answer.parent, answer.public, answer.private, b"")
        return _encode(msgspec.structs.replace(blob, ciphertext=seal(key, _NONCE, secret, _bound(blob, associated))))

    def unseal(self, sealed: bytes, associated: bytes) -> bytes:
        """The secret; `KeyStoreError` keystore.unsealable with its reason where it does not open."""
        blob = _decode(sealed)
        answer = ask(
            UnsealRequest(
                tcti=self.tcti,
                lifetime_s=self.deadline_s + GRACE_S,
                parent=blob.parent,
                public=blob.public,
                private=blob.private,
                auth=_auth_value(self.auth),
                pcrs=blob.pcrs,
            ),
            self.deadline_s,
        )
        match answer:
            case UnsealAnswer(secret=key):
                try:
                    return unseal(key, _NONCE, blob.ciphertext, _bound(blob, associated))
                except CryptoError:
                    raise _altered() from None
            case Unopened(why=why):
                raise _unopened(why, blob.pcrs)
            case _:
                raise refused(answer)


def _auth_value(auth: bytes) -> bytes:
    """32 bytes for the TPM, or none. It drops zeros at the end of a value and its callers may not, so none is there."""
    return hashlib.sha256(_AUTH_LABEL + auth).digest()[:-1] + b"\1" if auth else b""


def _bound(blob: _Blob, associated: bytes) -> bytes:
    head = _encode(msgspec.structs.replace(blob, ciphertext=b""))
    return _ASSOCIATED_LABEL + len(head).to_bytes(8, "big") + head + associated


def _encode(blob: _Blob) -> bytes:
    return msgspec.json.encode(blob)


def _decode(sealed: bytes) -> _Blob:
    try:
        blob = msgspec.json.decode(sealed, type=_Blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _altered() from None
    # One blob has one spelling: what base64 and JSON let through beside it was not written here.
    if _encode(blob) != sealed:
        raise _altered()
    return blob


def _unopened(why: str, pcrs: tuple[int, ...]) -> KeyStoreError:
    match why:
        case "parent":
            return KeyStoreError(
                UNSEALABLE,
                "The key was sealed by another TPM, or this one was cleared since.",
                hint="Open it on the host that sealed it, or rotate to a new key.",
            )
        case "auth":
            return KeyStoreError(
                UNSEALABLE,
                "The key was sealed with another authorisation value than the one that was given.",
                hint="Give the one that it was sealed with.",
            )
        case "pcrs" if pcrs:
            return KeyStoreError(
                UNSEALABLE,
                f"The host did not boot as it had when the key was sealed: one of its PCRs {', '.join(map(str, pcrs))} "
                "is another.",
                hint="Boot what was booted then. If the change was meant, rotate to a new key on this boot.",
            )
        case _:
            return _altered()


def _altered() -> KeyStoreError:
    return KeyStoreError(
        UNSEALABLE,
        "The sealed key was altered or cut short, or belongs in another place.",
        hint="Restore the file, or rotate to a new key.",
    )
