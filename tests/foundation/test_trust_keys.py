"""Key files: what is written, what is accepted, and that a private key stays private."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.crypto import COMPOSITE, CryptoError
from ringfence.crypto.forms import Form, KeyMaterial, export_private, export_public
from ringfence.trust import KeyPair, TrustError, generate, load_private, load_public
from ringfence.trust.keys import PRIVATE, PUBLIC, armour, only_the_owner, unarmour


def test_a_generated_pair_signs_and_its_public_file_verifies(tmp_path: Path) -> None:
    made = generate(tmp_path, "alice")
    loaded, public = load_private(tmp_path / "alice.key"), load_public(tmp_path / "alice.pub")
    assert loaded.public == made.public == public
    assert loaded.key_id == made.key_id
    signed = loaded.sign(b"message", b"context")
    COMPOSITE.verify(public, b"message", signed, b"context")
    with pytest.raises(CryptoError, match=r"crypto\.signature_invalid"):
        COMPOSITE.verify(public, b"message", signed, b"another context")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    previous = os.umask(umask)
    try:
        generate(tmp_path, "alice")
    finally:
        os.umask(previous)
    assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "alice.pub").stat().st_mode & 0o777 == 0o644


def test_the_private_half_shows_in_no_repr(tmp_path: Path) -> None:
    pair = generate(tmp_path, "alice")
    secret = unarmour(PRIVATE, (tmp_path / "alice.key").read_bytes())
    assert len(secret) == 64
    for shown in (repr(pair), str(pair)):
        assert repr(secret)[2:-1] not in shown
        assert "private" not in shown


def test_a_pair_is_parsed_when_it_is_made_and_keeps_no_plain_bytes() -> None:
    public, private = COMPOSITE.generate()
    for wrong in (b"", private[:-1], private + b"\0"):
        with pytest.raises(CryptoError, match=r"crypto\.key_invalid"):
            KeyPair(public, wrong)
    pair = KeyPair(public, private)
    assert pair == KeyPair(public, private)
    kept = [getattr(pair, name) for name in KeyPair.__slots__]
    assert private not in kept
    assert public in kept


@pytest.mark.parametrize("there", ["alice.key", "alice.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(TrustError, match=r"trust\.key_exists"):
        generate(tmp_path, "alice")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(there, "mine")]


def test_a_dangling_link_in_its_place_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "alice.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TrustError, match=r"trust\.key_exists"):
        generate(tmp_path, "alice")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "../a", "a b", "-rf", "a\n", "a" * 65])
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrustError, match=r"trust\.key_malformed"):
        generate(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_private_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    generate(tmp_path, "alice")
    (tmp_path / "alice.key").chmod(mode)
    with pytest.raises(TrustError, match=r"trust\.unsafe_file.*chmod 600"):
        load_private(tmp_path / "alice.key")


def test_a_private_key_of_another_user_is_refused() -> None:
    mine, roots, foreign = (
        os.stat_result((0o100600, 1, 1, 1, owner, owner, 164, 0, 0, 0)) for owner in (os.geteuid(), 0, os.geteuid() + 1)
    )
    only_the_owner(mine, Path("a.key"))
    only_the_owner(roots, Path("a.key"))
    with pytest.raises(TrustError, match="belongs to another user"):
        only_the_owner(foreign, Path("a.key"))


def test_a_public_file_is_no_private_one_and_the_other_way_round(tmp_path: Path) -> None:
    generate(tmp_path, "alice")
    for mode in (0o644, 0o600):
        (tmp_path / "alice.pub").chmod(mode)
        with pytest.raises(TrustError, match=r"trust\.key_malformed.*holds a public key.*ends in \.key"):
            load_private(tmp_path / "alice.pub")
    with pytest.raises(TrustError, match=r"trust\.key_malformed"):
        load_public(tmp_path / "alice.key")


def test_a_refused_private_key_does_not_show_in_the_error(tmp_path: Path) -> None:
    generate(tmp_path, "alice")
    text = (tmp_path / "alice.key").read_text()
    (tmp_path / "alice.key").write_text(text + text)
    with pytest.raises(TrustError) as caught:
        load_private(tmp_path / "alice.key")
    assert text.split("\n")[1] not in f"{caught.value!r} {caught.value}"


BLOCK = armour(PUBLIC, bytes(range(100)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        BLOCK[:-1],
        BLOCK + b"\n",
        BLOCK + BLOCK,
        b"# a comment\n" + BLOCK,
        BLOCK.replace(b"PUBLIC", b"PRIVATE"),
        BLOCK.replace(b"A", b"!", 1),
        BLOCK.replace(b"==", b"="),
        BLOCK.replace(b"\n", b"\n\n", 1),
        BLOCK.replace(b"\n", b"\n ", 1),
        BLOCK.replace(b"Yw==", b"Yx=="),  # the same bytes with other unused bits
        armour(PUBLIC, b"")[:40],
    ],
)
def test_a_block_that_is_not_as_it_was_written_is_refused(data: bytes) -> None:
    with pytest.raises(TrustError, match=r"trust\.key_malformed"):
        unarmour(PUBLIC, data)


def test_line_ends_of_another_system_are_read() -> None:
    assert unarmour(PUBLIC, BLOCK.replace(b"\n", b"\r\n")) == bytes(range(100))


@given(st.binary())
def test_every_key_comes_back_from_its_block(raw: bytes) -> None:
    assert unarmour(PRIVATE, armour(PRIVATE, raw)) == raw


@given(st.binary() | st.binary().map(lambda middle: BLOCK[:34] + middle + BLOCK[-32:]))
def test_arbitrary_bytes_raise_nothing_but_a_trust_error(data: bytes) -> None:
    try:
        raw = unarmour(PUBLIC, data)
    except TrustError:
        return
    assert armour(PUBLIC, raw) == data.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(("label", "size"), [(PUBLIC, 0), (PUBLIC, 1983), (PRIVATE, 63), (PRIVATE, 65)])
def test_a_key_of_another_size_is_refused(tmp_path: Path, label: str, size: int) -> None:
    path = tmp_path / "odd"
    path.write_bytes(armour(label, bytes(size)))
    path.chmod(0o600)
    with pytest.raises(TrustError, match=f"the key has {size} bytes"):
        (load_public if label == PUBLIC else load_private)(path)


@pytest.mark.parametrize("form", Form)
def test_a_public_key_in_a_standard_form_is_pinned_like_our_own(tmp_path: Path, form: Form) -> None:
    pair = generate(tmp_path, "alice")
    (tmp_path / "alice.pem").write_bytes(export_public(COMPOSITE.name, pair.public, form))
    assert load_public(tmp_path / "alice.pem") == pair.public


def test_a_standard_key_of_another_algorithm_or_a_private_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alice.pem"
    public, private = COMPOSITE.generate()
    path.write_bytes(export_public("Ed25519", public[-32:], Form.PEM))
    with pytest.raises(TrustError, match=r"trust\.key_malformed.*of Ed25519, not of ML-DSA-65-Ed25519"):
        load_public(path)
    path.write_bytes(export_private(KeyMaterial(COMPOSITE.name, public, private), Form.JWK))
    with pytest.raises(TrustError, match=r"trust\.key_malformed.*private key"):
        load_public(path)
