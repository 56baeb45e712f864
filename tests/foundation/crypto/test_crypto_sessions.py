"""Session keys: what they depend on, and additional shares that nobody can strip, swap or use alone."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from dataclasses import dataclass, fields

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.crypto import COMPOSITE, CryptoError, kem
from ringfence.crypto.combiner import NOTHING_BOUND, AdditionalShare, AdditionalShareKem, Bound, bind, combine
from ringfence.crypto.errors import (
    HANDSHAKE_MALFORMED,
    HANDSHAKE_REFUSED,
    HANDSHAKE_SHARE_MISSING,
    KEY_INVALID,
    SIGNATURE_INVALID,
)
from ringfence.crypto.handshake import NO_SHARES, Established, Initiator, Received, Shares
from ringfence.crypto.kems import AdditionalShareKemName, KemName
from ringfence.trust import KeyPair

NOW = 1_800_000_000
ALICE, BOB = KeyPair(*COMPOSITE.generate()), KeyPair(*COMPOSITE.generate())
SECRET = st.binary(min_size=32, max_size=32)


@dataclass(frozen=True)
class ShareOver:
    """An additional share made of an ordinary KEM, in the place of one that is not to be relied on alone."""

    algorithm: KemName
    name: str

    def generate(self) -> tuple[bytes, bytes]:
        return kem(self.algorithm).generate()

    def encapsulate(self, public: bytes) -> tuple[bytes, AdditionalShare]:
        ciphertext, secret = kem(self.algorithm).encapsulate(public)
        return ciphertext, AdditionalShare(self.name, secret)

    def decapsulate(self, private: bytes, ciphertext: bytes) -> AdditionalShare:
        return AdditionalShare(self.name, kem(self.algorithm).decapsulate(private, ciphertext))


ONE, TWO = ShareOver("X25519", "share-one"), ShareOver("ML-KEM-768", "share-two")


def run(
    offered: Shares = NO_SHARES,
    accepted: Shares = NO_SHARES,
    *,
    mine: Bound = NOTHING_BOUND,
    theirs: Bound = NOTHING_BOUND,
) -> tuple[Established, Established, bytes, bytes]:
    """A whole handshake: what both sides hold, and the two messages."""
    initiator = Initiator.start(ALICE, BOB.public, "session", now=NOW, random=secrets.token_bytes, shares=offered)
    greeted = Received.parse(initiator.message).authenticate(ALICE.public, BOB, "session", now=NOW)
    responder = greeted.answer(BOB, name="name", expires_at=NOW + 900, random=secrets.token_bytes, shares=accepted)
    reply, established = responder.finish(BOB, b"parameters", theirs)
    return initiator.finish(reply, lambda _nonce, _parameters: mine), established, initiator.message, reply


def chosen(reply: bytes) -> str | None:
    """Which share a reply takes."""
    share = msgspec.msgpack.decode(msgspec.msgpack.decode(reply)["reply"])["share"]
    return None if share is None else str(share["algorithm"])


class TestBinding:
    def test_sides_that_verified_the_same_hold_the_same_keys(self) -> None:
        bound = Bound(attestation="a" * 64, policies="b" * 64)
        mine, theirs, _, _ = run(mine=bound, theirs=bound)
        assert mine == theirs
        assert mine.key("request") == theirs.key("request")

    @pytest.mark.parametrize(
        "theirs",
        [
            Bound("a", "c"),
            Bound("c", "b"),
            Bound("b", "a"),
            Bound("", "b"),
            Bound("a", ""),
            Bound("ab", ""),
            Bound("", "ab"),
            NOTHING_BOUND,
        ],
    )
    def test_sides_that_verified_something_else_hold_different_keys(self, theirs: Bound) -> None:
        """Another attestation result, another policy bundle, none at all, or the same text in another place."""
        mine, others, _, _ = run(mine=Bound("a", "b"), theirs=theirs)
        assert mine.transcript == others.transcript
        assert mine.key("request") != others.key("request")

    @given(
        one=st.tuples(st.text(), st.text(), st.text(), st.text()),
        two=st.tuples(st.text(), st.text(), st.text(), st.text()),
    )
    def test_every_field_counts_and_none_runs_into_the_next(
        self, one: tuple[str, str, str, str], two: tuple[str, str, str, str]
    ) -> None:
        def bound(values: tuple[str, str, str, str]) -> bytes:
            return bind(
                bytes(32),
                initiator=values[0],
                responder=values[1],
                bound=Bound(attestation=values[2], policies=values[3]),
            )

        assert (bound(one) == bound(two)) is (one == two)

    def test_the_keys_are_those_of_the_documented_schedule(self) -> None:
        """Computed anew from the page, with nothing of the package but the KEM."""
        initiator = Initiator.start(
            ALICE, BOB.public, "session", now=NOW, random=secrets.token_bytes, shares=Shares((ONE,))
        )
        greeted = Received.parse(initiator.message).authenticate(ALICE.public, BOB, "session", now=NOW)
        responder = greeted.answer(
            BOB, name="name", expires_at=NOW + 900, random=secrets.token_bytes, shares=Shares((ONE,))
        )
        message, established = responder.finish(BOB, b"parameters", Bound("attested", "policies"))

        outer = msgspec.msgpack.decode(message)
        reply = msgspec.msgpack.decode(outer["reply"])
        share_private = initiator.pending[0].private
        secret = kem("X-Wing").decapsulate(initiator.private, reply["ciphertext"])
        secret += kem("X25519").decapsulate(share_private, reply["share"]["ciphertext"])

        def sha256(data: bytes) -> bytes:
            return hashlib.sha256(data).digest()

        def extract(salt: bytes, key: bytes) -> bytes:
            return hmac.digest(salt, key, "sha256")

        def expand(key: bytes, info: bytes) -> bytes:
            return hmac.digest(key, info + b"\x01", "sha256")

        h1 = sha256(b"ringfence h1" + sha256(initiator.message) + sha256(outer["reply"]))
        h2 = sha256(b"ringfence h2" + h1 + sha256(outer["sealed"]))
        late = extract(h2, expand(extract(h1, secret), b"derived"))
        info = b"ringfence session 1"
        for part in (ALICE.key_id, BOB.key_id, "attested", "policies"):
            info += len(part).to_bytes(4, "big") + part.encode()
        session = expand(late, info)
        assert established.key("request") == expand(session, b"ringfence key request")


class TestShares:
    def test_a_share_that_both_take_enters_the_keys(self) -> None:
        mine, theirs, _, reply = run(Shares((ONE,)), Shares((ONE,)))
        assert mine == theirs
        assert chosen(reply) == "share-one"

    @pytest.mark.parametrize(
        ("offered", "accepted", "taken"),
        [
            ((), (), None),
            ((ONE,), (), None),
            ((), (ONE,), None),
            ((ONE,), (TWO,), None),
            ((ONE, TWO), (TWO, ONE), "share-two"),
            ((ONE, TWO), (ONE,), "share-one"),
        ],
    )
    def test_the_responder_takes_its_first_choice_of_what_is_offered(
        self,
        offered: tuple[AdditionalShareKem, ...],
        accepted: tuple[AdditionalShareKem, ...],
        taken: str | None,
    ) -> None:
        mine, theirs, _, reply = run(Shares(offered), Shares(accepted))
        assert mine == theirs
        assert chosen(reply) == taken

    @pytest.mark.parametrize("name", ["BIKE-L1", "BIKE-L3", "BIKE-L5"])
    def test_bike_is_a_share(self, name: AdditionalShareKemName) -> None:
        shares = Shares.named([name], required=True)
        mine, theirs, _, reply = run(shares, shares)
        assert mine == theirs
        assert chosen(reply) == name

    def test_a_forged_bike_ciphertext_gives_other_keys_and_no_error_of_its_own(self) -> None:
        """Implicit rejection: the responder's signature is what fails, or the sealed parameters do not open."""
        shares = Shares.named(["BIKE-L1"], required=True)
        initiator = Initiator.start(ALICE, BOB.public, "s", now=NOW, random=secrets.token_bytes, shares=shares)
        greeted = Received.parse(initiator.message).authenticate(ALICE.public, BOB, "s", now=NOW)
        responder = greeted.answer(BOB, name="n", expires_at=NOW + 9, random=secrets.token_bytes, shares=shares)
        reply = msgspec.msgpack.decode(responder.reply)
        flipped = bytes([reply["share"]["ciphertext"][0] ^ 1]) + reply["share"]["ciphertext"][1:]
        reply["share"]["ciphertext"] = flipped
        hostile = dataclasses.replace(responder, reply=msgspec.msgpack.encode(reply))
        with pytest.raises(CryptoError):
            initiator.finish(hostile.finish(BOB, b"")[0])

    def test_either_side_may_insist(self) -> None:
        for offered, accepted in (
            (Shares((ONE,), required=True), NO_SHARES),
            (Shares((ONE,), required=True), Shares((TWO,))),
            (NO_SHARES, Shares((ONE,), required=True)),
            (Shares((TWO,)), Shares((ONE,), required=True)),
        ):
            with pytest.raises(CryptoError) as caught:
                run(offered, accepted)
            assert caught.value.code is HANDSHAKE_SHARE_MISSING
        run(Shares((ONE,), required=True), Shares((ONE,), required=True))

    def test_an_offer_cannot_be_stripped_on_the_way(self) -> None:
        """Downgrade: the offer is under the initiator's signature, so the responder never sees a weaker one."""
        initiator = Initiator.start(
            ALICE, BOB.public, "session", now=NOW, random=secrets.token_bytes, shares=Shares((ONE,))
        )
        outer = msgspec.msgpack.decode(initiator.message)
        hello = msgspec.msgpack.decode(outer["hello"])
        assert len(hello["offers"]) == 1
        weaker = msgspec.msgpack.encode({**outer, "hello": msgspec.msgpack.encode({**hello, "offers": []})})
        with pytest.raises(CryptoError) as caught:
            Received.parse(weaker).authenticate(ALICE.public, BOB, "session", now=NOW)
        assert caught.value.code is SIGNATURE_INVALID

    @pytest.mark.parametrize("share", [None, {"algorithm": "share-two", "ciphertext": b"x"}])
    def test_a_choice_cannot_be_changed_on_the_way(self, share: object) -> None:
        """Downgrade: the choice is under the responder's signature."""
        both = Shares((ONE, TWO))
        initiator = Initiator.start(ALICE, BOB.public, "session", now=NOW, random=secrets.token_bytes, shares=both)
        greeted = Received.parse(initiator.message).authenticate(ALICE.public, BOB, "session", now=NOW)
        responder = greeted.answer(BOB, name="n", expires_at=NOW + 9, random=secrets.token_bytes, shares=both)
        outer = msgspec.msgpack.decode(responder.finish(BOB, b"")[0])
        reply = msgspec.msgpack.decode(outer["reply"])
        weaker = msgspec.msgpack.encode({**outer, "reply": msgspec.msgpack.encode({**reply, "share": share})})
        with pytest.raises(CryptoError) as caught:
            initiator.finish(weaker)
        assert caught.value.code is HANDSHAKE_REFUSED

    def test_a_responder_that_takes_what_was_not_offered_is_refused(self) -> None:
        initiator = Initiator.start(ALICE, BOB.public, "session", now=NOW, random=secrets.token_bytes)
        generous = Initiator.start(
            ALICE, BOB.public, "session", now=NOW, random=secrets.token_bytes, shares=Shares((ONE,))
        )
        greeted = Received.parse(generous.message).authenticate(ALICE.public, BOB, "session", now=NOW)
        responder = greeted.answer(BOB, name="n", expires_at=NOW + 9, random=secrets.token_bytes, shares=Shares((ONE,)))
        reply, _ = responder.finish(BOB, b"")
        # The initiator of the generous hello, without what it needs to take the share.
        forgetful = Initiator(generous.message, BOB.public, initiator.private)
        with pytest.raises(CryptoError, match="not offered"):
            forgetful.finish(reply)

    def test_an_offer_that_comes_twice_or_five_offers_are_malformed(self) -> None:
        five = tuple(ShareOver("X25519", f"share-{number}") for number in range(5))
        for offered in (Shares((ONE, ONE)), Shares(five)):
            with pytest.raises(CryptoError) as caught:
                run(offered, Shares((ONE,)))
            assert caught.value.code is HANDSHAKE_MALFORMED

    def test_another_share_gives_other_keys(self) -> None:
        """An attacker who has broken X-Wing, and not the share, is left without the keys."""
        secret, salt = secrets.token_bytes(32), secrets.token_bytes(32)
        real = combine(salt, secret, [AdditionalShare("BIKE-L1", secrets.token_bytes(32))])
        assert combine(salt, secret, [AdditionalShare("BIKE-L1", secrets.token_bytes(32))]) != real
        assert combine(salt, secret) != real

    @given(secret=SECRET, share=SECRET, salt=SECRET)
    def test_a_share_never_stands_in_for_the_secret(self, secret: bytes, share: bytes, salt: bytes) -> None:
        swapped = combine(salt, share, [AdditionalShare("a", secret)])
        assert (combine(salt, secret, [AdditionalShare("a", share)]) == swapped) is (secret == share)

    def test_a_share_is_no_key(self) -> None:
        share = AdditionalShare("BIKE-L1", bytes(range(32)))
        assert not isinstance(share, bytes)
        assert [field.name for field in fields(share) if not field.name.startswith("_")] == ["algorithm"]
        assert repr(bytes(range(32))) not in repr(share)
        with pytest.raises(TypeError):
            combine(bytes(32), share)  # type: ignore[arg-type]

    @pytest.mark.parametrize("size", [0, 31, 33, 64])
    def test_a_secret_of_another_size_is_refused(self, size: int) -> None:
        for attempt in (
            lambda: combine(bytes(32), bytes(size)),
            lambda: AdditionalShare("a", bytes(size)),
        ):
            with pytest.raises(CryptoError) as caught:
                attempt()
            assert caught.value.code is KEY_INVALID

    @given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
    @settings(max_examples=60, deadline=None)
    def test_no_byte_of_a_reply_with_a_share_can_change(self, at: float, flip: int) -> None:
        initiator = Initiator.start(
            ALICE, BOB.public, "session", now=NOW, random=secrets.token_bytes, shares=Shares((ONE,))
        )
        greeted = Received.parse(initiator.message).authenticate(ALICE.public, BOB, "session", now=NOW)
        responder = greeted.answer(BOB, name="n", expires_at=NOW + 9, random=secrets.token_bytes, shares=Shares((ONE,)))
        altered = bytearray(responder.finish(BOB, b"")[0])
        altered[int(at * len(altered))] ^= flip
        with pytest.raises(CryptoError):
            initiator.finish(bytes(altered))

    def test_the_private_key_of_a_share_is_in_no_repr(self) -> None:
        initiator = Initiator.start(
            ALICE, BOB.public, "session", now=NOW, random=secrets.token_bytes, shares=Shares((ONE,))
        )
        (pending,) = initiator.pending
        assert repr(pending.private) not in repr(initiator)
