"""Endorsements of modules: statements by which pinned people vouch for a guest module, by its digest.

Policies read who vouches for a job's module in `context.module_signers`, by the names of their pins. A statement is
signed with the composite key, and ends when it says so. Threat: code that nobody has reviewed runs on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ringfence.config import KeyId, Sha256
from ringfence.crypto import COMPOSITE, CryptoError, Signer
from ringfence.errors import RingfenceError
from ringfence.plugin.errors import ENDORSEMENT_REFUSED, GateError
from ringfence.plugin.identity.statement_folder import StatementFolder
from ringfence.trust import Role, TrustError, TrustList

CONTEXT: Final = b"ringfence endorsement v1"
SUFFIX: Final = ".endorsement"
MAX_FILE: Final = 16 * 1024
MAX_FILES: Final = 4096
MAX_LIFETIME_S: Final = 366 * 86_400
SKEW_S: Final = 60

Time = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800)]


class Endorsement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the owner of the key `signer` states of the module with a SHA-256, between two times in seconds."""

    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    module: Sha256
    signer: KeyId
    issued_at: Time
    expires_at: Time


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    statement: Annotated[bytes, msgspec.Meta(max_length=4096)]
    signature: Annotated[bytes, msgspec.Meta(max_length=8192)]


def endorse(signer: Signer, module: str, *, now: int, lifetime_s: int) -> bytes:
    """A signed statement for the module with this digest in hex. Raises `gateway.endorsement_refused`."""
    made = Endorsement(1, module, signer.key_id, now, now + lifetime_s)
    _check(made)
    statement = msgspec.json.encode(made)
    return msgspec.json.encode(_Signed(statement, signer.sign(statement, CONTEXT)))


def verify(data: bytes, trust: TrustList, *, now: int) -> Endorsement:
    """The statement in `data`, once its signature holds under the pinned key that it names.

    Raises `gateway.endorsement_refused`.
    """
    try:
        signed = msgspec.json.decode(data, type=_Signed)
        made = msgspec.json.decode(signed.statement, type=Endorsement)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _refused("it is no signed endorsement") from None
    _check(made)
    try:
        pin = trust.find(Role.CLIENT, made.signer, now)
        COMPOSITE.verify(pin.public, signed.statement, signed.signature, CONTEXT)
    except TrustError as error:
        raise _refused(f"its signer is not known ({error.code})") from None
    except CryptoError:
        raise _refused("its signature does not hold") from None
    return made


class Endorsements:
    """Who vouches for a module, of those whose pins in `trust` are in `group`, by the statements in `folder`."""

    def __init__(self, folder: Path, trust: Callable[[], TrustList], *, group: str) -> None:
        self._trust = trust
        self._group = group
        self._folder = StatementFolder(
            folder, SUFFIX, lambda data, now: verify(data, trust(), now=now), max_bytes=MAX_FILE, most=MAX_FILES
        )

    def signers(self, module: str, now: int) -> tuple[str, ...]:
        """The names of the pins that vouch for the module now, sorted. Never raises: without a trust list, nobody."""
        try:
            trust = self._trust()
        except RingfenceError:
            return ()
        found = set()
        for one in self._folder.statements(now):
            if one.module != module or not one.issued_at - SKEW_S <= now < one.expires_at:
                continue
            try:
                pin = trust.find(Role.CLIENT, one.signer, now)
            except TrustError:
                continue
            if self._group in pin.groups:
                found.add(pin.name)
        return tuple(sorted(found))


def _check(made: Endorsement) -> None:
    if not 0 < made.expires_at - made.issued_at <= MAX_LIFETIME_S:
        raise _refused(f"it lasts for longer than {MAX_LIFETIME_S // 86_400} days, or for no time at all")


def _refused(why: str) -> GateError:
    return GateError(
        ENDORSEMENT_REFUSED,
        f"The endorsement is refused: {why}.",
        field="endorsement",
        hint="Make one with `ringfence gateway endorse`.",
    )
