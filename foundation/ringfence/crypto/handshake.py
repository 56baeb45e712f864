"""The handshake: two pinned parties agree keys that are bound to everything both of them saw. Sans-IO.

One protocol opens a client's session with a gateway and a gateway's channel to an agent; `purpose` tells them apart.

    initiator                                       responder
    hello = purpose, ids, X-Wing key, offered
            share keys, nonce, time
    sign(hello)                    --- hello --->   verify, check ids and freshness
                                                    encapsulate; reply = nonce, name, expiry, X-Wing ciphertext,
                                                    at most one share's ciphertext
                                                    h1 = H(hello, its signature, reply)
                                                    parameters sealed under a key from h1
                                   <--- reply ---   sign(h2 = H(h1, sealed parameters))
    verify, decapsulate, unseal

Keys: `early = combine(h1, X-Wing secret, shares)` gives the sealing key; the keys of use come from
`bind(HKDF-Extract(h2, HKDF-Expand(early, "derived")))` over both identities and the digests that each side verified
by itself. The shape is TLS 1.3's key schedule (RFC 8446 section 7.1) with signatures as in SIGMA. docs/cryptography.md
says what that gives and what it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeVar

import msgspec

from ringfence.crypto.combiner import NOTHING_BOUND, AdditionalShare, AdditionalShareKem, Bound, bind, combine
from ringfence.crypto.errors import (
    HANDSHAKE_MALFORMED,
    HANDSHAKE_MISDIRECTED,
    HANDSHAKE_REFUSED,
    HANDSHAKE_SHARE_MISSING,
    HANDSHAKE_STALE,
    CryptoError,
)
from ringfence.crypto.identity import COMPOSITE, Signer, key_id
from ringfence.crypto.kems import AdditionalShareKemName, kem
from ringfence.crypto.symmetric import KEY_SIZE, NONCE_SIZE, digest, hkdf_expand, hkdf_extract, seal, unseal

HELLO_LIFETIME_S: Final = 60
MAX_MESSAGE: Final = 1024 * 1024
_NONCE = 32
_HELLO_CONTEXT = b"ringfence handshake 1 hello"
_REPLY_CONTEXT = b"ringfence handshake 1 reply"
_XWING = kem("X-Wing")
MAX_OFFERS: Final = 4

Random = Callable[[int], bytes]
_Message = TypeVar("_Message", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Shares:
    """The additional shares of one side, in its order of preference; `required` refuses a handshake without one.

    At most four; more are refused by whoever reads the hello.
    """

    kems: tuple[AdditionalShareKem, ...] = ()
    required: bool = False

    @classmethod
    def named(cls, names: Iterable[AdditionalShareKemName], *, required: bool) -> Shares:
        """The shares called `names`; raises `crypto.provider_absent` where one cannot be had."""
        return cls(tuple(kem(name) for name in names), required)


NO_SHARES: Final = Shares()


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An additional share that the initiator can take: the algorithm and its public key for this handshake alone."""

    algorithm: str
    public: bytes


class Chosen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one offer that the responder took, and its ciphertext."""

    algorithm: str
    ciphertext: bytes


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the initiator says and signs."""

    purpose: str
    initiator: str
    responder: str
    kem_public: bytes
    offers: Annotated[tuple[Offer, ...], msgspec.Meta(max_length=MAX_OFFERS)]
    nonce: bytes
    created_at: int


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the responder says in the open; `name` is the session's or the channel's id."""

    responder: str
    ciphertext: bytes
    share: Chosen | None
    nonce: bytes
    name: str
    expires_at: int


class _HelloMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hello: bytes
    signature: bytes


class _ReplyMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reply: bytes
    sealed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Established:
    """What both sides hold afterwards. `secret` derives keys by purpose; it is never shown."""

    name: str
    expires_at: int
    parameters: bytes
    transcript: bytes
    secret: bytes = field(repr=False)

    def key(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose."""
        return hkdf_expand(self.secret, b"ringfence key " + purpose.encode(), KEY_SIZE)


@dataclass(frozen=True, slots=True)
class _Pending:
    kem: AdditionalShareKem
    private: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Initiator:
    """The initiator between its hello and the reply."""

    message: bytes
    responder_public: bytes
    private: bytes = field(repr=False)
    pending: tuple[_Pending, ...] = ()
    share_required: bool = False

    @classmethod
    def start(
        cls,
        signer: Signer,
        responder_public: bytes,
        purpose: str,
        *,
        now: int,
        random: Random,
        shares: Shares = NO_SHARES,
    ) -> Initiator:
        """Greets the holder of `responder_public`, offering `shares`; send `message`."""
        public, private = _XWING.generate()
        offers, pending = [], []
        for share_kem in shares.kems:
            share_public, share_private = share_kem.generate()
            offers.append(Offer(share_kem.name, share_public))
            pending.append(_Pending(share_kem, share_private))
        hello = msgspec.msgpack.encode(
            Hello(purpose, signer.key_id, key_id(responder_public), public, tuple(offers), random(_NONCE), now)
        )
        message = msgspec.msgpack.encode(_HelloMessage(hello, signer.sign(hello, _HELLO_CONTEXT)))
        return cls(message, responder_public, private, tuple(pending), shares.required)

    def finish(self, message: bytes, check: Callable[[bytes, bytes], Bound] | None = None) -> Established:
        """The keys, once the reply is proven to come from the pinned responder and to answer this hello.

        `check` receives the session's nonce (`h1`) and the parameters, raises to refuse them, and returns the digests
        of what it has verified: the keys agree with the responder's only where it verified the same.
        """
        answer = _decode(message, _ReplyMessage)
        reply = _decode(answer.reply, Reply)
        nonce = _first_transcript(self.message, answer.reply)
        transcript = _second_transcript(nonce, answer.sealed)
        try:
            COMPOSITE.verify(self.responder_public, transcript, answer.signature, _REPLY_CONTEXT)
        except CryptoError:
            raise CryptoError(
                HANDSHAKE_REFUSED,
                "The reply is not signed by the pinned key over this handshake.",
                hint="Compare the responder's key with the pinned one; somebody may stand between.",
            ) from None
        if reply.responder != key_id(self.responder_public):
            raise CryptoError(HANDSHAKE_MISDIRECTED, "The reply names another responder than the pinned one.")
        shares = self._shares(reply.share)
        early = combine(nonce, _XWING.decapsulate(self.private, reply.ciphertext), shares)
        parameters = unseal(_sealing_key(early), bytes(NONCE_SIZE), answer.sealed, nonce)
        bound = NOTHING_BOUND if check is None else check(nonce, parameters)
        own_id = Received.parse(self.message).hello.initiator
        secret = _late_secret(early, transcript, own_id, reply.responder, bound)
        return Established(reply.name, reply.expires_at, parameters, transcript, secret)

    def _shares(self, chosen: Chosen | None) -> tuple[AdditionalShare, ...]:
        if chosen is None:
            if self.share_required:
                raise _share_missing("The responder took none of the offered additional shares.")
            return ()
        for pending in self.pending:
            if pending.kem.name == chosen.algorithm:
                return (pending.kem.decapsulate(pending.private, chosen.ciphertext),)
        raise CryptoError(HANDSHAKE_REFUSED, "The reply takes an additional share that was not offered.")


@dataclass(frozen=True, slots=True)
class Received:
    """A hello that has been parsed and not authenticated: use it to look the initiator's pinned key up, no more."""

    hello: Hello
    message: bytes
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, message: bytes) -> Received:
        """Raises `CryptoError` (`handshake.malformed`) unless `message` has the shape of a hello."""
        outer = _decode(message, _HelloMessage)
        return cls(_decode(outer.hello, Hello), message, outer.hello, outer.signature)

    def authenticate(self, initiator_public: bytes, responder: Signer, purpose: str, *, now: int) -> Greeted:
        """The hello, proven to be signed by `initiator_public`, fresh, and meant for `responder` and `purpose`."""
        if self.hello.initiator != key_id(initiator_public):
            raise CryptoError(HANDSHAKE_MISDIRECTED, "The hello names another initiator than the pinned key.")
        COMPOSITE.verify(initiator_public, self.signed, self.signature, _HELLO_CONTEXT)
        if self.hello.responder != responder.key_id or self.hello.purpose != purpose:
            raise CryptoError(
                HANDSHAKE_MISDIRECTED,
                "The hello is meant for another party or purpose.",
                field="responder",
                hint="Compare the pinned key's id with the one its owner reads to you; pin nothing an answer names.",
            )
        if abs(now - self.hello.created_at) > HELLO_LIFETIME_S:
            raise CryptoError(
                HANDSHAKE_STALE,
                f"The hello was made {now - self.hello.created_at} s ago, more than {HELLO_LIFETIME_S} s away.",
                field="created_at",
                hint="Set both clocks, then open a new session.",
            )
        return Greeted(self)


@dataclass(frozen=True, slots=True)
class Greeted:
    """An authenticated hello, ready to be answered."""

    received: Received

    def answer(
        self, responder: Signer, *, name: str, expires_at: int, random: Random, shares: Shares = NO_SHARES
    ) -> Responder:
        """Encapsulates to the initiator; `Responder.nonce` is what others sign to take part in this handshake.

        Takes the first of `shares` that was offered; raises `handshake.share_missing` where one is required.
        """
        hello = self.received.hello
        chosen, taken = _choose(hello.offers, shares)
        ciphertext, secret = _XWING.encapsulate(hello.kem_public)
        reply = msgspec.msgpack.encode(Reply(responder.key_id, ciphertext, chosen, random(_NONCE), name, expires_at))
        nonce = _first_transcript(self.received.message, reply)
        return Responder(nonce, reply, name, expires_at, hello.initiator, combine(nonce, secret, taken))


@dataclass(frozen=True, slots=True)
class Responder:
    """The responder before it has sealed its parameters."""

    nonce: bytes
    reply: bytes
    name: str
    expires_at: int
    initiator: str
    early: bytes = field(repr=False)

    def finish(self, responder: Signer, parameters: bytes, bound: Bound = NOTHING_BOUND) -> tuple[bytes, Established]:
        """The message to send and the keys, which also depend on `bound`."""
        sealed = seal(_sealing_key(self.early), bytes(NONCE_SIZE), parameters, self.nonce)
        transcript = _second_transcript(self.nonce, sealed)
        message = msgspec.msgpack.encode(_ReplyMessage(self.reply, sealed, responder.sign(transcript, _REPLY_CONTEXT)))
        secret = _late_secret(self.early, transcript, self.initiator, responder.key_id, bound)
        return message, Established(self.name, self.expires_at, parameters, transcript, secret)


def _choose(offers: tuple[Offer, ...], shares: Shares) -> tuple[Chosen | None, tuple[AdditionalShare, ...]]:
    offered = {offer.algorithm: offer.public for offer in offers}
    if len(offered) != len(offers):
        raise CryptoError(HANDSHAKE_MALFORMED, "The hello offers an additional share twice.", field="offers")
    for share_kem in shares.kems:
        if share_kem.name in offered:
            ciphertext, share = share_kem.encapsulate(offered[share_kem.name])
            return Chosen(share_kem.name, ciphertext), (share,)
    if shares.required:
        raise _share_missing("The hello offers none of the additional shares that are required here.")
    return None, ()


def _share_missing(what: str) -> CryptoError:
    return CryptoError(
        HANDSHAKE_SHARE_MISSING, what, hint="Have both sides take the same additional KEM, or require none."
    )


def _first_transcript(hello_message: bytes, reply: bytes) -> bytes:
    return digest(b"ringfence h1" + digest(hello_message) + digest(reply))


def _second_transcript(nonce: bytes, sealed: bytes) -> bytes:
    return digest(b"ringfence h2" + nonce + digest(sealed))


def _sealing_key(early: bytes) -> bytes:
    # Used for one message only, so its nonce may be constant.
    return hkdf_expand(early, b"ringfence sealed parameters", KEY_SIZE)


def _late_secret(early: bytes, transcript: bytes, initiator: str, responder: str, bound: Bound) -> bytes:
    late = hkdf_extract(transcript, hkdf_expand(early, b"derived", KEY_SIZE))
    return bind(late, initiator=initiator, responder=responder, bound=bound)


def _decode(data: bytes, shape: type[_Message]) -> _Message:
    if len(data) > MAX_MESSAGE:
        raise CryptoError(HANDSHAKE_MALFORMED, f"A handshake message of {len(data)} bytes is too long.")
    try:
        return msgspec.msgpack.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CryptoError(HANDSHAKE_MALFORMED, f"The handshake message does not parse: {error}.") from None
