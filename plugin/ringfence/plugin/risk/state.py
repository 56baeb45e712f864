"""What was learned, as signed bytes: one form for every payload that outlives a process.

A state is canonical msgpack (each value in its shortest form, nothing behind it): the array

    [magic, version, kind, generation, saved_at, key_id, payload, signature]

- `kind`        what the payload is; one is never read as another
- `generation`  1 for the first state of a kind, then one more for each; whoever knows the newest refuses older ones
- `saved_at`    seconds since the epoch by the writer's clock
- `key_id`      whose composite signature (ML-DSA-65 and Ed25519) follows, over the same array with the payload's
                SHA-256 in its place and without the signature

Nothing of the payload is decoded before the signature holds: whoever can write the file, but lacks the gateway's key,
can take what was learned away, and can teach it nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from ringfence.crypto import COMPOSITE, CryptoError, Signer
from ringfence.plugin.risk.errors import (
    STATE_FORGED,
    STATE_MALFORMED,
    STATE_ROLLED_BACK,
    STATE_VERSION,
    RiskError,
)

MAGIC: Final = "ringfence.risk-state"
VERSION: Final = 1
MAX_BYTES: Final = 512 * 1024 * 1024
_CONTEXT = b"ringfence.risk-state/1"
_RESET = "Move the file away to begin again without what was learned; every principal is unknown then."

_Text = Annotated[str, msgspec.Meta(max_length=64)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    magic: _Text
    version: _Number
    kind: _Text
    generation: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    saved_at: _Number
    key_id: _Text
    payload: bytes
    signature: Annotated[bytes, msgspec.Meta(max_length=8192)]


_DECODER = msgspec.msgpack.Decoder(_Envelope)


@dataclass(frozen=True, slots=True)
class State:
    """A state whose signature held."""

    kind: str
    generation: int
    saved_at: int
    payload: bytes = field(repr=False)


def seal_state(state: State, signer: Signer) -> bytes:
    """The state, signed. Raises `RiskError` risk.state_malformed where it takes more than `MAX_BYTES`."""
    signature = signer.sign(_signed(state, signer.key_id), _CONTEXT)
    data = msgspec.msgpack.encode(
        _Envelope(
            MAGIC,
            VERSION,
            state.kind,
            state.generation,
            state.saved_at,
            signer.key_id,
            state.payload,
            signature,
        )
    )
    if len(data) > MAX_BYTES:
        raise malformed(f"it takes {len(data)} bytes, and at most {MAX_BYTES} are read back")
    return data


def open_state(data: bytes, kind: str, *, keys: Mapping[str, bytes], newest: int = 0) -> State:
    """The state in `data`, signed by one of `keys` (key id to public key).

    `newest` is the newest generation that is known from elsewhere, 0 for none: a state before it was rolled back.
    Raises `RiskError`: risk.state_malformed, risk.state_version, risk.state_forged, risk.state_rolled_back.
    """
    if len(data) > MAX_BYTES:
        raise malformed(f"it has more than {MAX_BYTES} bytes")
    try:
        envelope = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise malformed("it is not what a gateway writes") from None
    if envelope.magic != MAGIC or envelope.kind != kind:
        raise malformed(f"it is not a state of the kind {kind!r}")
    if envelope.version != VERSION:
        raise RiskError(
            STATE_VERSION,
            f"The state has version {envelope.version}, and this gateway reads version {VERSION}.",
            field=kind,
            hint=_RESET,
        )
    state = State(kind, envelope.generation, envelope.saved_at, envelope.payload)
    public = keys.get(envelope.key_id)
    if public is None:
        raise _forged(kind, "is signed by a key that is not this gateway's")
    try:
        COMPOSITE.verify(public, _signed(state, envelope.key_id), envelope.signature, _CONTEXT)
    except CryptoError:
        raise _forged(kind, "has a signature that does not hold") from None
    if msgspec.msgpack.encode(envelope) != data:
        raise malformed("it is not in the canonical encoding")
    if envelope.generation < newest:
        raise RiskError(
            STATE_ROLLED_BACK,
            f"The state is of generation {envelope.generation}, and {newest} was written already.",
            field=kind,
            hint=f"Put the newest file back. {_RESET}",
        )
    return state


def malformed(why: str) -> RiskError:
    """The error of a state that cannot be meant."""
    return RiskError(STATE_MALFORMED, f"The state is refused: {why}.", field="state", hint=_RESET)


def _signed(state: State, key_id: str) -> bytes:
    digest = hashlib.sha256(state.payload).digest()
    return msgspec.msgpack.encode((MAGIC, VERSION, state.kind, state.generation, state.saved_at, key_id, digest))


def _forged(kind: str, why: str) -> RiskError:
    return RiskError(
        STATE_FORGED,
        f"The state {why}.",
        field=kind,
        hint=f"Find out who wrote the file. {_RESET}",
    )
