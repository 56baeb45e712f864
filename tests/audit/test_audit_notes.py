"""Signed notes and checkpoints: the specification's own example, and everything that is nearly one."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.audit import AuditError, Checkpoint, Keys
from ringfence.audit.checkpoint import decode_checkpoint, decode_checkpoints, origin_of, sign_checkpoint, split_entries
from ringfence.audit.notes import COMPOSITE_TYPE, MAX_NOTE, NoteKey, decode_note, encode_note, key_id
from ringfence.audit.proofs import decode_proof
from ringfence.audit.segments import Start, decode_covered, decode_header, encode_header
from tests.audit.conftest import Ed25519Signer, verify_ed25519

# c2sp.org/signed-note, sections "Example" and "Format".
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
EMPTY_LINE_IN_TEXT = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaq"
    "P3ZekRwNtIc=\n"
).encode()

ORIGIN = origin_of("agent", "rf1test")
POINT = Checkpoint(ORIGIN, 7, b"\x01" * 32, "ab" * 32, 1_000, 3)


def test_the_specifications_example_is_read_and_its_signature_holds() -> None:
    note = decode_note(EXAMPLE)
    (signature,) = note.signatures
    assert note.text == b"This is an example message.\n"
    assert signature.name == "example.com/foo"
    assert signature.key_id.hex() == EXAMPLE_KEY.split("+")[1]
    public = base64.b64decode(EXAMPLE_KEY.split("+")[2])[1:]
    verify_ed25519(public, note.text, signature.signature)
    assert encode_note(note.text, note.signatures) == EXAMPLE


def test_a_text_may_hold_an_empty_line() -> None:
    note = decode_note(EMPTY_LINE_IN_TEXT)
    assert note.text.endswith(b":\n\ned \xc3\xa8 subito sera.\n")
    assert encode_note(note.text, note.signatures) == EMPTY_LINE_IN_TEXT


def test_a_checkpoint_is_exactly_the_documented_lines(signer: Ed25519Signer) -> None:
    data = sign_checkpoint(POINT, signer)
    text, _, signature = data.decode().partition("\n\n")
    assert text.split("\n") == [
        "ringfence.audit/agent/rf1test",
        "7",
        base64.b64encode(b"\x01" * 32).decode(),
        "chain " + "ab" * 32,
        "time_ns 1000",
        "counter 3",
    ]
    assert signature.startswith("— ringfence.audit/agent/rf1test ")
    signed = decode_checkpoint(data)
    assert signed.checkpoint == POINT
    assert signed.check(Keys(signer.public, verify_ed25519)) is False


def test_a_second_key_is_checked_where_it_is_known(signer: Ed25519Signer) -> None:
    second = Ed25519Signer()
    signed = decode_checkpoint(sign_checkpoint(POINT, signer, second))
    assert signed.check(Keys(signer.public, verify_ed25519, second.public, verify_ed25519)) is True
    assert signed.check(Keys(signer.public, verify_ed25519, Ed25519Signer().public, verify_ed25519)) is False
    assert signed.check(Keys(signer.public, verify_ed25519)) is False
    first, other = signed.note.signatures
    forged = encode_note(signed.note.text, [first, type(other)(other.name, other.key_id, first.signature)])
    with pytest.raises(AuditError, match="not the key's"):
        decode_checkpoint(forged).check(Keys(signer.public, verify_ed25519, second.public, verify_ed25519))


def test_a_signature_of_another_name_or_id_is_none(signer: Ed25519Signer) -> None:
    signed = decode_checkpoint(sign_checkpoint(POINT, signer))
    (own,) = signed.note.signatures
    for other in (type(own)("elsewhere", own.key_id, own.signature), type(own)(own.name, b"\0" * 4, own.signature)):
        changed = decode_checkpoint(encode_note(signed.note.text, [other]))
        with pytest.raises(AuditError) as caught:
            changed.check(Keys(signer.public, verify_ed25519))
        assert caught.value.code.name == "audit.forged_checkpoint"
    key = NoteKey(ORIGIN, COMPOSITE_TYPE, signer.public, verify_ed25519)
    assert own.key_id == key.id == key_id(ORIGIN, COMPOSITE_TYPE, signer.public)


@pytest.mark.parametrize("line", range(6))
def test_every_line_of_a_checkpoint_is_under_its_signature(signer: Ed25519Signer, line: int) -> None:
    other = Checkpoint(origin_of("gateway", "rf1test"), 8, b"\x02" * 32, "cd" * 32, 1_001, 4)
    own = decode_checkpoint(sign_checkpoint(POINT, signer))
    lines = POINT.text().split(b"\n")
    lines[line] = other.text().split(b"\n")[line]
    changed = decode_checkpoint(encode_note(b"\n".join(lines), own.note.signatures))
    with pytest.raises(AuditError, match=r"not the key's|not signed by the key"):
        changed.check(Keys(signer.public, verify_ed25519))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n\n", b"\n"),
        ("— ".encode(), b"- "),
        (b"\n7\n", b"\n07\n"),
        (b"\n7\n", b"\n0\n"),
        (b"\n7\n", b"\n-7\n"),
        (b"chain ", b"chain  "),
        (b"chain ab", b"chain AB"),
        (b"counter 3\n", b"counter 3\nmore\n"),
        (b"counter 3\n", b""),
        (b"ringfence.audit/agent", b"ringfence.audit/a gent"),
        (b"ringfence.audit/agent", b"example.com/agent"),
        (b"\n7\n", b"\n7\r\n"),
        (b"\n7\n", b"\n7\x00\n"),
        (b"\n7\n", b"\n7\xff\n"),
        (b"=\n", b"=\nmore"),
        (b"= \n", b""),
    ],
)
def test_what_is_nearly_a_checkpoint_is_refused(signer: Ed25519Signer, old: bytes, new: bytes) -> None:
    data = sign_checkpoint(POINT, signer)
    changed = data.replace(old, new)
    if changed == data:
        changed = data[:-1]
    with pytest.raises(AuditError) as caught:
        decode_checkpoint(changed)
    assert caught.value.code.name == "audit.bad_note"


def test_what_is_too_large_is_refused(signer: Ed25519Signer) -> None:
    (own,) = decode_checkpoint(sign_checkpoint(POINT, signer)).note.signatures
    for data in (encode_note(POINT.text(), [own] * 17), b"x" * (MAX_NOTE + 1)):
        with pytest.raises(AuditError):
            decode_checkpoint(data)


def test_a_file_of_notes_is_split_where_they_end(signer: Ed25519Signer) -> None:
    entry = sign_checkpoint(POINT, signer) + b"\n"
    assert list(split_entries((entry * 3).splitlines(keepends=True))) == [entry] * 3
    torn = list(split_entries((entry + entry[:40]).splitlines(keepends=True)))
    assert [signed.checkpoint for signed in decode_checkpoints(torn)] == [POINT]
    with pytest.raises(AuditError, match="but others follow") as caught:
        list(decode_checkpoints([entry, entry[:-2], entry]))
    assert caught.value.code.name == "audit.corrupt"


def test_a_name_that_a_note_cannot_hold_is_made_one() -> None:
    assert origin_of("my agent+1\n", "rf1") == "ringfence.audit/my-agent-1-/rf1"


HEADER = encode_header(Start(ORIGIN))[:-1]


def mutated(good: bytes) -> st.SearchStrategy[bytes]:
    spans = st.tuples(st.integers(0, len(good)), st.integers(0, 20), st.binary(max_size=20))
    return st.builds(lambda span: good[: span[0]] + span[2] + good[span[0] + span[1] :], spans)


@given(st.one_of(st.binary(max_size=300), mutated(EXAMPLE), mutated(EMPTY_LINE_IN_TEXT), mutated(HEADER)))
def test_no_decoder_raises_anything_but_its_error(data: bytes) -> None:
    for decode in (decode_note, decode_checkpoint, decode_proof, decode_covered):
        with contextlib.suppress(AuditError):
            decode(data)
    with contextlib.suppress(AuditError):
        assert encode_header(decode_header(data)) == data + b"\n"
    assert b"".join(split_entries(data.splitlines(keepends=True))) == data
