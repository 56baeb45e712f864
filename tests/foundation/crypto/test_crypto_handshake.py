"""The handshake under attack: whatever is changed, replayed, relayed or misdirected, no keys come out."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringfence.crypto import COMPOSITE, CryptoError
from ringfence.crypto.combiner import NOTHING_BOUND, Bound
from ringfence.crypto.errors import (
    CIPHERTEXT_INVALID,
    HANDSHAKE_MALFORMED,
    HANDSHAKE_MISDIRECTED,
    HANDSHAKE_REFUSED,
    HANDSHAKE_STALE,
    SIGNATURE_INVALID,
)
from ringfence.crypto.handshake import HELLO_LIFETIME_S, MAX_MESSAGE, Established, Initiator, Received, Responder
from ringfence.errors import Code
from ringfence.trust import KeyPair

NOW = 1_800_000_000


def start(initiator: KeyPair, responder: bytes, purpose: str = "session", now: int = NOW) -> Initiator:
    return Initiator.start(initiator, responder, purpose, now=now, random=secrets.token_bytes)


def answer(
    hello: bytes, initiator: KeyPair, responder: KeyPair, purpose: str = "session", now: int = NOW
) -> tuple[bytes, Established]:
    return prepare(hello, initiator, responder, purpose, now).finish(responder, b"parameters")


def prepare(
    hello: bytes, initiator: KeyPair, responder: KeyPair, purpose: str = "session", now: int = NOW
) -> Responder:
    greeted = Received.parse(hello).authenticate(initiator.public, responder, purpose, now=now)
    return greeted.answer(responder, name="name", expires_at=now + 900, random=secrets.token_bytes)


def refused(attempt: Callable[[], object]) -> Code:
    with pytest.raises(CryptoError) as caught:
        attempt()
    return caught.value.code


def test_both_sides_hold_the_same_keys(alice: KeyPair, bob: KeyPair) -> None:
    initiator = start(alice, bob.public)
    reply, theirs = answer(initiator.message, alice, bob)
    mine = initiator.finish(reply)
    assert mine == theirs
    assert (mine.name, mine.expires_at, mine.parameters) == ("name", NOW + 900, b"parameters")
    assert mine.key("request") == theirs.key("request")
    assert len({mine.key(purpose) for purpose in ("request", "grant", "proof", "")}) == 4


def test_every_handshake_has_its_own_keys_and_nonce(alice: KeyPair, bob: KeyPair) -> None:
    initiator = start(alice, bob.public)
    one, two = prepare(initiator.message, alice, bob), prepare(initiator.message, alice, bob)
    assert one.nonce != two.nonce
    assert one.finish(bob, b"")[1].key("request") != two.finish(bob, b"")[1].key("request")


def test_the_check_sees_the_nonce_of_both_sides_and_can_refuse(alice: KeyPair, bob: KeyPair) -> None:
    """What a third party signs over this nonce, such as a host, cannot be copied from another handshake."""
    initiator = start(alice, bob.public)
    responder = prepare(initiator.message, alice, bob)
    reply, _ = responder.finish(bob, b"a proof over another nonce")
    seen: list[tuple[bytes, bytes]] = []

    def see(nonce: bytes, parameters: bytes) -> Bound:
        seen.append((nonce, parameters))
        return NOTHING_BOUND

    initiator.finish(reply, see)
    assert seen == [(responder.nonce, b"a proof over another nonce")]

    def refuse(nonce: bytes, parameters: bytes) -> Bound:
        raise CryptoError(SIGNATURE_INVALID, f"{parameters!r} does not fit {len(nonce)} bytes.")

    assert refused(lambda: initiator.finish(reply, refuse)) is SIGNATURE_INVALID


def test_secrets_are_not_in_any_repr(alice: KeyPair, bob: KeyPair) -> None:
    public, private = COMPOSITE.generate()
    initiator = start(alice, bob.public)
    responder = prepare(initiator.message, alice, bob)
    established = responder.finish(bob, b"")[1]
    for value, secret in (
        (KeyPair(public, private), private),
        (initiator, initiator.private),
        (responder, responder.early),
        (established, established.secret),
    ):
        assert repr(secret) not in repr(value)
        assert secret.hex() not in repr(value)


@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@example(at=0.0, flip=1)
@settings(max_examples=120, deadline=None)
def test_no_byte_of_the_hello_can_change(alice: KeyPair, bob: KeyPair, at: float, flip: int) -> None:
    initiator = start(alice, bob.public)
    altered = _flip(initiator.message, at, flip)
    # Either the responder notices, or its answer is to another hello than the one that was sent.
    with pytest.raises(CryptoError):
        initiator.finish(answer(altered, alice, bob)[0])


@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@example(at=0.0, flip=1)
@settings(max_examples=120, deadline=None)
def test_no_byte_of_the_reply_can_change(alice: KeyPair, bob: KeyPair, at: float, flip: int) -> None:
    initiator = start(alice, bob.public)
    reply, _ = answer(initiator.message, alice, bob)
    with pytest.raises(CryptoError):
        initiator.finish(_flip(reply, at, flip))


def test_a_reply_to_an_earlier_hello_is_refused(alice: KeyPair, bob: KeyPair) -> None:
    earlier, _ = answer(start(alice, bob.public).message, alice, bob)
    assert refused(lambda: start(alice, bob.public).finish(earlier)) is HANDSHAKE_REFUSED


def test_whoever_replays_a_hello_learns_no_key(alice: KeyPair, bob: KeyPair, mallory: KeyPair) -> None:
    overheard = start(alice, bob.public).message
    reply, _ = answer(overheard, alice, bob)
    attacker = Initiator(overheard, bob.public, start(mallory, bob.public).private)
    assert refused(lambda: attacker.finish(reply)) is CIPHERTEXT_INVALID


@pytest.mark.parametrize("age", [-HELLO_LIFETIME_S, 0, HELLO_LIFETIME_S])
def test_a_hello_is_fresh_for_a_minute_either_way(alice: KeyPair, bob: KeyPair, age: int) -> None:
    answer(start(alice, bob.public).message, alice, bob, now=NOW + age)


@pytest.mark.parametrize("age", [-HELLO_LIFETIME_S - 1, HELLO_LIFETIME_S + 1, 10**9])
def test_a_stale_hello_or_one_from_the_future_is_refused(alice: KeyPair, bob: KeyPair, age: int) -> None:
    hello = start(alice, bob.public).message
    assert refused(lambda: answer(hello, alice, bob, now=NOW + age)) is HANDSHAKE_STALE


def test_another_purpose_or_responder_is_refused(alice: KeyPair, bob: KeyPair, mallory: KeyPair) -> None:
    hello = start(alice, bob.public, "channel").message
    assert refused(lambda: answer(hello, alice, bob, "session")) is HANDSHAKE_MISDIRECTED
    relayed = start(alice, mallory.public).message
    assert refused(lambda: answer(relayed, alice, bob)) is HANDSHAKE_MISDIRECTED


def test_the_hello_must_be_signed_by_the_key_it_names(alice: KeyPair, bob: KeyPair, mallory: KeyPair) -> None:
    hello = start(mallory, bob.public).message
    assert refused(lambda: answer(hello, alice, bob)) is HANDSHAKE_MISDIRECTED
    outer = msgspec.msgpack.decode(hello)
    inner = msgspec.msgpack.decode(outer["hello"])
    outer["hello"] = msgspec.msgpack.encode({**inner, "initiator": alice.key_id})
    outer["signature"] = mallory.sign(outer["hello"], b"ringfence handshake 1 hello")
    assert refused(lambda: answer(msgspec.msgpack.encode(outer), alice, bob)) is SIGNATURE_INVALID


def test_a_signature_of_another_context_is_no_hello(alice: KeyPair, bob: KeyPair) -> None:
    outer = msgspec.msgpack.decode(start(alice, bob.public).message)
    outer["signature"] = alice.sign(outer["hello"], b"ringfence handshake 1 reply")
    assert refused(lambda: answer(msgspec.msgpack.encode(outer), alice, bob)) is SIGNATURE_INVALID


def test_somebody_between_cannot_answer_in_place_of_the_responder(
    alice: KeyPair, bob: KeyPair, mallory: KeyPair
) -> None:
    initiator = start(alice, bob.public)
    greeted = Received.parse(initiator.message).authenticate(alice.public, bob, "session", now=NOW)
    for named in (mallory, bob):
        own = greeted.answer(named, name="name", expires_at=NOW + 900, random=secrets.token_bytes)
        reply, _ = own.finish(mallory, b"")
        with pytest.raises(CryptoError) as caught:
            initiator.finish(reply)
        assert caught.value.code is HANDSHAKE_REFUSED
    genuine = msgspec.msgpack.decode(answer(initiator.message, alice, bob)[0])
    genuine["signature"] = msgspec.msgpack.decode(reply)["signature"]
    assert refused(lambda: initiator.finish(msgspec.msgpack.encode(genuine))) is HANDSHAKE_REFUSED


def test_a_reply_that_names_another_responder_is_refused(alice: KeyPair, bob: KeyPair, mallory: KeyPair) -> None:
    initiator = start(alice, bob.public)
    greeted = Received.parse(initiator.message).authenticate(alice.public, bob, "session", now=NOW)
    naming = greeted.answer(mallory, name="name", expires_at=NOW + 900, random=secrets.token_bytes)
    reply, _ = naming.finish(bob, b"")
    assert refused(lambda: initiator.finish(reply)) is HANDSHAKE_MISDIRECTED


def test_an_unusable_kem_key_in_a_signed_hello_is_an_error_of_ours(alice: KeyPair, bob: KeyPair) -> None:
    inner = msgspec.msgpack.decode(msgspec.msgpack.decode(start(alice, bob.public).message)["hello"])
    for public in (b"", bytes(1216), b"\xff" * 1216):
        hello = msgspec.msgpack.encode({**inner, "kem_public": public})
        outer = {"hello": hello, "signature": alice.sign(hello, b"ringfence handshake 1 hello")}
        with pytest.raises(CryptoError):
            answer(msgspec.msgpack.encode(outer), alice, bob)


@given(message=st.binary(max_size=200))
@example(message=b"\x82\xa5hello\xc4\x00")
@example(message=b"\x91" * 20_000)
@example(message=b"\x81" * 20_000)
@settings(max_examples=200, deadline=None)
def test_garbage_is_malformed(bob: KeyPair, message: bytes) -> None:
    assert refused(lambda: Received.parse(message)) is HANDSHAKE_MALFORMED
    waiting = Initiator(b"hello", bob.public, b"")
    assert refused(lambda: waiting.finish(message)) is HANDSHAKE_MALFORMED


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, deadline=None)
def test_a_message_cut_short_is_malformed(alice: KeyPair, bob: KeyPair, share: float) -> None:
    initiator = start(alice, bob.public)
    reply, _ = answer(initiator.message, alice, bob)
    cut = initiator.message[: int(share * len(initiator.message))]
    assert refused(lambda: Received.parse(cut)) is HANDSHAKE_MALFORMED
    assert refused(lambda: initiator.finish(reply[: int(share * len(reply))])) is HANDSHAKE_MALFORMED


def test_an_unknown_field_or_an_oversized_message_is_malformed(alice: KeyPair, bob: KeyPair) -> None:
    outer = msgspec.msgpack.decode(start(alice, bob.public).message)
    more = msgspec.msgpack.encode({**outer, "more": 1})
    oversized = msgspec.msgpack.encode({**outer, "signature": bytes(MAX_MESSAGE)})
    assert refused(lambda: Received.parse(more)) is HANDSHAKE_MALFORMED
    assert refused(lambda: Received.parse(oversized)) is HANDSHAKE_MALFORMED


def _flip(message: bytes, at: float, flip: int) -> bytes:
    altered = bytearray(message)
    altered[int(at * len(message))] ^= flip
    return bytes(altered)
