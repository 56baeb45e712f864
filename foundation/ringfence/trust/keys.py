"""Key files: ML-DSA-65-Ed25519 keys as armoured text, a private one readable by its owner alone.

A file holds one block in the manner of RFC 7468: a BEGIN line, the raw key in base64 at 64 characters a line, an END
line. The labels are Ringfence's own, because the content is the raw composite key and no ASN.1.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.crypto import COMPOSITE, CryptoError, key_id
from ringfence.crypto.forms import import_public
from ringfence.crypto.ports import SigningKey
from ringfence.trust.errors import KEY_EXISTS, KEY_MALFORMED, UNSAFE_FILE, TrustError
from ringfence.trust.files import read, write_new
from ringfence.trust.pins import PUBLIC_KEY_BYTES

PRIVATE_KEY_BYTES = 64  # the seeds of ML-DSA-65 and of Ed25519
PRIVATE = "RINGFENCE PRIVATE KEY"
PUBLIC = "RINGFENCE PUBLIC KEY"

_LINE = 64
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, init=False)
class KeyPair:
    """A signing key with its public half; the private half, parsed once, shows in no repr."""

    public: bytes
    _signing: SigningKey = field(init=False, repr=False, compare=False)

    def __init__(self, public: bytes, private: bytes) -> None:
        """The pair of 64 private bytes; raises `CryptoError` crypto.key_invalid for another number of them."""
        object.__setattr__(self, "public", public)
        object.__setattr__(self, "_signing", COMPOSITE.signing_key(private))

    @property
    def key_id(self) -> str:
        """The id under which the public key is pinned."""
        return key_id(self.public)

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        """The ML-DSA-65-Ed25519 signature of `message`, bound to `context` (at most 255 bytes)."""
        return self._signing.sign(message, context)


def generate(folder: Path, name: str) -> KeyPair:
    """Make a key pair and write `folder/NAME.key` (mode 0600) and `folder/NAME.pub` (0644).

    Raises `TrustError`: trust.key_malformed for a name that is no plain file name, trust.key_exists where either
    file is there already.
    """
    if not _FILE_NAME.fullmatch(name):
        raise TrustError(
            KEY_MALFORMED,
            f"{name!r} cannot name a key file.",
            field="name",
            hint="Use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
    private_path, public_path = folder / f"{name}.key", folder / f"{name}.pub"
    for path in (private_path, public_path):
        if os.path.lexists(path):
            raise _exists(path)
    public, private = COMPOSITE.generate()
    try:
        write_new(private_path, armour(PRIVATE, private), 0o600)
        write_new(public_path, armour(PUBLIC, public), 0o644)
    except FileExistsError as error:
        raise _exists(Path(error.filename)) from error
    return KeyPair(public, private)


def load_private(path: Path) -> KeyPair:
    """The key pair of a private key file.

    Raises `TrustError`: trust.missing_file, trust.unsafe_file where anyone but its owner may read or write it or
    where it belongs to someone else, trust.key_malformed.
    """
    # Before its mode is looked at: a public key may be read by all, and its mode is no fault.
    if read(path, lambda _status, _path: None).startswith(f"-----BEGIN {PUBLIC}-----".encode()):
        raise TrustError(
            KEY_MALFORMED,
            f"{path} holds a public key, and a private one is needed.",
            field=str(path),
            hint="Name the file that ends in .key.",
        )
    raw = _unpack(path, read(path, only_the_owner), PRIVATE, PRIVATE_KEY_BYTES)
    return KeyPair(COMPOSITE.public(raw), raw)


def load_public(path: Path) -> bytes:
    """The public key (1984 bytes) of a file: Ringfence's own block, PEM, DER or JWK.

    Raises `TrustError` trust.missing_file or trust.key_malformed.
    """
    data = read(path, lambda _status, _path: None)
    if data.startswith(b"-----BEGIN RINGFENCE"):
        return _unpack(path, data, PUBLIC, PUBLIC_KEY_BYTES)
    try:
        algorithm, public = import_public(data)
    except CryptoError as error:
        raise TrustError(KEY_MALFORMED, f"{path}: {error.message}", field=str(path), hint=error.hint) from error
    if algorithm != COMPOSITE.name:
        raise TrustError(
            KEY_MALFORMED,
            f"{path}: the key is of {algorithm}, not of {COMPOSITE.name}.",
            field=str(path),
            hint="Pin the key that its owner made with `ringfence trust generate` or `ringfence keys generate`.",
        )
    return public


def armour(label: str, raw: bytes) -> bytes:
    """`raw` as a text block between BEGIN and END lines that carry `label`."""
    text = base64.b64encode(raw).decode("ascii")
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode("ascii")


def unarmour(label: str, data: bytes) -> bytes:
    """The bytes of the one block in `data`, exactly as `armour` writes it; `TrustError` trust.key_malformed."""
    hint = "Copy the file again, whole and unchanged, or make a new key with `ringfence trust generate`."
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    if lines[0] != f"-----BEGIN {label}-----".encode() or lines[-2:] != [f"-----END {label}-----".encode(), b""]:
        raise TrustError(KEY_MALFORMED, f"this is not one block labelled {label}.", hint=hint)
    try:
        raw = binascii.a2b_base64(b"".join(lines[1:-2]), strict_mode=True)
    except binascii.Error as error:
        raise TrustError(KEY_MALFORMED, "the block is not base64.", hint=hint) from error
    # One key has one text: a second spelling of the same key would be a second file digest.
    if armour(label, raw) != b"\n".join(lines):
        raise TrustError(KEY_MALFORMED, "the block is not laid out as it was written.", hint=hint)
    return raw


def _unpack(path: Path, data: bytes, label: str, size: int) -> bytes:
    try:
        raw = unarmour(label, data)
    except TrustError as error:
        raise TrustError(error.code, f"{path}: {error.message}", field=str(path), hint=error.hint) from error
    if len(raw) != size:
        raise TrustError(KEY_MALFORMED, f"{path}: the key has {len(raw)} bytes, not {size}.", field=str(path))
    return raw


def only_the_owner(status: os.stat_result, path: Path) -> None:
    """Refuse a private key file that anyone but its owner may use, or that is not this user's or root's."""
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise TrustError(
            UNSAFE_FILE,
            f"{path} holds a private key, and others than its owner may use it.",
            field=str(path),
            hint=f"If nobody has read it, run: chmod 600 {path}",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise TrustError(
            UNSAFE_FILE,
            f"{path} holds a private key and belongs to another user.",
            field=str(path),
            hint="Run as its owner, or give the file to the user that this runs as.",
        )


def _exists(path: Path) -> TrustError:
    return TrustError(
        KEY_EXISTS,
        f"{path} is there already, and keys are never overwritten.",
        field=str(path),
        hint="Choose another name, or delete the old key if nothing pins it.",
    )
