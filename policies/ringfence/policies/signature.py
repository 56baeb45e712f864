"""A bundle's detached signature: who vouches for these files, and how that is checked before a policy is parsed.

What is signed is a statement that names the bundle, its version and its digest, which covers every file and every
bundle that it extends. The signature is by the composite ML-DSA-65-Ed25519 key of a pinned policy signer, under a
context of its own, so that no signature made for another purpose counts here.

Threat: whoever can write the bundle's folder, but holds no policy signer's key, cannot change what is decided; nor can
a signature of one bundle, or of one version, be put beside another.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ringfence.crypto import COMPOSITE, CryptoError
from ringfence.policies.assembly import MAX_FILE_BYTES, bundle_digest, check_limits, read_manifest
from ringfence.policies.bundle import Bundle
from ringfence.policies.errors import BAD_SIGNATURE, UNSIGNED, WRONG_SIGNER, PolicyError
from ringfence.trust import KeyPair, Role, TrustError, TrustList

CONTEXT = b"ringfence policy bundle"
FILE = "bundle.sig"
MAX_BYTES = 16 * 1024
"""Most bytes of a signature's file; one takes about 5,000."""


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed; `digest` is the bundle's, in hex. `signed_at` in seconds since the Unix epoch."""

    v: int
    name: str
    version: int
    digest: str
    key_id: str
    signed_at: int


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    statement: Statement
    signature: str


_SIGNED = msgspec.json.Decoder(_Signed)


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose signature held: the pin's name, and the statement."""

    name: str
    statement: Statement


def describe(files: Mapping[str, bytes], base_named: Callable[[str], Bundle]) -> tuple[str, int, str]:
    """Name, version and digest of a bundle from its files alone: the manifest is read, and no policy.

    Raises `PolicyError` (policy.too_large, policy.bad_manifest, policy.bad_layout).
    """
    check_limits(files)
    manifest = read_manifest(files)
    bases: Sequence[Bundle] = [base_named(name) for name in manifest.bases]
    return manifest.name, manifest.version, bundle_digest(files, bases)


def sign(files: Mapping[str, bytes], base_named: Callable[[str], Bundle], key: KeyPair, now: int) -> bytes:
    """The content of a bundle's signature file; `now` in seconds since the Unix epoch."""
    name, version, digest = describe(files, base_named)
    statement = Statement(1, name, version, digest, key.key_id, now)
    signature = base64.b64encode(key.sign(_message(statement), CONTEXT)).decode()
    document = msgspec.json.encode(_Signed(statement, signature), order="deterministic")
    return msgspec.json.format(document, indent=2) + b"\n"


def verify_signature(
    files: Mapping[str, bytes],
    signature: bytes | None,
    trust: TrustList,
    now: int,
    base_named: Callable[[str], Bundle],
) -> Signer:
    """Check the signature of a bundle's files against the pinned policy signers, before any policy is parsed.

    `signature` is the content of `bundle.sig`, None where there is none. Raises `PolicyError`: policy.unsigned,
    policy.bad_signature (it does not hold, or is of other files), policy.wrong_signer (its key is pinned for nothing,
    for something else, or no longer).
    """
    if signature is None:
        raise PolicyError(
            UNSIGNED,
            "The bundle has no signature.",
            field=FILE,
            hint="A policy signer signs it with `ringfence policy sign`.",
        )
    signed = _decode(signature)
    statement = signed.statement
    try:
        pin = trust.find(Role.POLICY_SIGNER, statement.key_id, now)
    except TrustError as error:
        raise PolicyError(
            WRONG_SIGNER, f"Nobody may sign policies with this key: {error.message}", field=FILE, hint=error.hint
        ) from error
    try:
        raw = base64.b64decode(signed.signature, validate=True)
        COMPOSITE.verify(pin.public, _message(statement), raw, CONTEXT)
    except (binascii.Error, ValueError, CryptoError) as error:
        raise _bad(f"The signature of {pin.name!r} does not hold.") from error
    name, version, digest = describe(files, base_named)
    if (statement.name, statement.version, statement.digest) != (name, version, digest):
        raise _bad(f"The signature of {pin.name!r} is of other files: a file was changed after it was signed.")
    return Signer(pin.name, statement)


def _decode(data: bytes) -> _Signed:
    if len(data) > min(MAX_BYTES, MAX_FILE_BYTES):
        raise _bad(f"The file is larger than {MAX_BYTES} bytes.")
    try:
        signed = _SIGNED.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"The file holds no signature: {error}.") from error
    if signed.statement.v != 1:
        raise _bad("The signature has a form that this version does not know.")
    return signed


def _message(statement: Statement) -> bytes:
    return msgspec.json.encode(statement)


def _bad(message: str) -> PolicyError:
    return PolicyError(
        BAD_SIGNATURE, message, field=FILE, hint="Sign the bundle as it is now: `ringfence policy sign`."
    )
