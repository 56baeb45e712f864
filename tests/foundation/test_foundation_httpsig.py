"""Message signatures: one form is accepted, for one request, at one time; every other is refused with its code."""

from __future__ import annotations

import base64
import dataclasses
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.crypto import digest, mac
from ringfence.httpsig import (
    COVERED,
    DIGEST_MISMATCH,
    MAX_LIFETIME_S,
    SIGNATURE_EXPIRED,
    SIGNATURE_INVALID,
    SIGNATURE_MALFORMED,
    SIGNATURE_MISSING,
    SKEW_S,
    IntegrityError,
    Target,
    content_digest,
    fields,
    parse,
    sign,
    signature_base,
    verify,
    verify_body,
)

KEY = bytes(range(32))
TARGET = Target("POST", "Gateway.example", "/v1/jobs", "?a=1")
BODY = b"a job"
NOW = 1_800_000_000
LIFETIME_S = 60
HEADERS = sign(KEY, TARGET, BODY, session="session", nonce="n" * 24, now=NOW, lifetime_s=LIFETIME_S)
FIELDS = tuple(HEADERS)


def check(
    headers: dict[str, str], *, key: bytes = KEY, target: Target = TARGET, body: bytes = BODY, now: int = NOW
) -> None:
    presented = parse(fields(list(headers.items())))
    verify(presented, key, target, now=now)
    verify_body(presented, body)


def test_the_signature_base_agrees_with_rfc_9421() -> None:
    """RFC 9421 appendix B.2.5, hmac-sha256 with the shared secret of appendix B.1.5."""
    key = base64.b64decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
    covered = [
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("@authority", "example.com"),
        ("content-type", "application/json"),
    ]
    parameters = '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
    signature = base64.b64encode(mac(key, signature_base(covered, parameters))).decode()
    assert signature == "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="


def test_the_content_digest_agrees_with_rfc_9530() -> None:
    """RFC 9530 appendix D, the body of its first example."""
    assert content_digest(b'{"hello": "world"}\n') == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_what_was_signed_verifies() -> None:
    check(HEADERS)
    presented = parse(fields([("host", "other"), *HEADERS.items()]))
    assert (presented.session, presented.nonce) == ("session", "n" * 24)
    assert (presented.created_at, presented.expires_at) == (NOW, NOW + LIFETIME_S)


@pytest.mark.parametrize(
    "target",
    [
        dataclasses.replace(TARGET, method="PUT"),
        dataclasses.replace(TARGET, method="post"),
        dataclasses.replace(TARGET, authority="other.example"),
        dataclasses.replace(TARGET, authority="gateway.example:8443"),
        dataclasses.replace(TARGET, path="/v1/jobs/"),
        dataclasses.replace(TARGET, path="/v1/%6aobs"),
        dataclasses.replace(TARGET, path="/v1/jobs?a=1", query="?"),
        dataclasses.replace(TARGET, query="?"),
        dataclasses.replace(TARGET, query="?a=2"),
        dataclasses.replace(TARGET, query="?a=1&a=1"),
    ],
)
def test_another_target_is_refused(target: Target) -> None:
    with pytest.raises(IntegrityError) as caught:
        check(HEADERS, target=target)
    assert caught.value.code is SIGNATURE_INVALID


def test_the_authority_has_no_case() -> None:
    check(HEADERS, target=dataclasses.replace(TARGET, authority="gateway.EXAMPLE"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"created={NOW}", f"created={NOW + 1}"),
        (f"expires={NOW + LIFETIME_S}", f"expires={NOW + LIFETIME_S + 1}"),
        ('nonce="n', 'nonce="m'),
        ('keyid="session"', 'keyid="another"'),
        (f"created={NOW}", f"created=0{NOW}"),
    ],
)
def test_another_parameter_is_refused(old: str, new: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        check({**HEADERS, "signature-input": HEADERS["signature-input"].replace(old, new)})
    assert caught.value.code is SIGNATURE_INVALID


def test_another_key_is_refused() -> None:
    with pytest.raises(IntegrityError) as caught:
        check(HEADERS, key=digest(KEY))
    assert caught.value.code is SIGNATURE_INVALID


@pytest.mark.parametrize("body", [b"", BODY[:-1], BODY + b"\0", b"A job"])
def test_another_body_is_refused(body: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        check(HEADERS, body=body)
    assert caught.value.code is DIGEST_MISMATCH


def test_a_digest_that_fits_another_body_breaks_the_signature() -> None:
    with pytest.raises(IntegrityError) as caught:
        check({**HEADERS, "content-digest": content_digest(b"other")}, body=b"other")
    assert caught.value.code is SIGNATURE_INVALID


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_refused(field: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        check({name: value for name, value in HEADERS.items() if name != field})
    assert (caught.value.code, caught.value.field) == (SIGNATURE_MISSING, field)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("again", ["", "the same"])
def test_a_field_that_appears_twice_is_refused(field: str, again: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse(fields([*HEADERS.items(), (field, again and HEADERS[field])]))
    assert (caught.value.code, caught.value.field) == (SIGNATURE_MALFORMED, field)


INPUT = HEADERS["signature-input"]
OTHERS = {
    "a second signature": ("signature-input", f"{INPUT}, other={INPUT.partition('=')[2]}"),
    "a second signature's value": ("signature", f"{HEADERS['signature']}, other=:{'A' * 43}=:"),
    "another label": ("signature-input", INPUT.replace("ringfence=", "sig1=")),
    "another label's value": ("signature", HEADERS["signature"].replace("ringfence=", "sig1=")),
    "another order": ("signature-input", INPUT.replace('"@method" "@authority"', '"@authority" "@method"')),
    "a component less": ("signature-input", INPUT.replace(' "@query"', "")),
    "a component more": ("signature-input", INPUT.replace('"@query"', '"@query" "date"')),
    "a component with a parameter": ("signature-input", INPUT.replace('"@query"', '"@query";req')),
    "parameters in another order": (
        "signature-input",
        re.sub(r"(;created=[0-9]+)(;expires=[0-9]+)", r"\2\1", INPUT),
    ),
    "no expiry": ("signature-input", re.sub(r";expires=[0-9]+", "", INPUT)),
    "no nonce": ("signature-input", re.sub(r';nonce="n+"', "", INPUT)),
    "a short nonce": ("signature-input", re.sub(r'nonce="n+"', 'nonce="n"', INPUT)),
    "one more parameter": ("signature-input", INPUT + ';tag="x"'),
    "another algorithm": ("signature-input", INPUT.replace("hmac-sha256", "ed25519")),
    "no algorithm": ("signature-input", INPUT.replace(';alg="hmac-sha256"', "")),
    "digits that are not ASCII": ("signature-input", INPUT.replace("created=1", "created=\N{ARABIC-INDIC DIGIT ONE}")),
    "a negative time": ("signature-input", INPUT.replace("created=", "created=-")),
    "a decimal time": ("signature-input", INPUT.replace(";expires", ".0;expires")),
    "two spaces": ("signature-input", INPUT.replace('" "', '"  "', 1)),
    "a space at the front": ("signature-input", " " + INPUT),
    "a line feed at the end": ("signature-input", INPUT + "\n"),
    "a tab in the value": ("signature", HEADERS["signature"].replace("=:", "=:\t")),
    "a line feed after the value": ("signature", HEADERS["signature"] + "\n"),
    "an upper-case label": ("signature", HEADERS["signature"].replace("ringfence", "Ringfence")),
    "a value in base64url": ("signature", f"ringfence=:{'-' * 43}=:"),
    "a value without padding": ("signature", HEADERS["signature"].replace("=:", ":")),
    "a parameter on the value": ("signature", HEADERS["signature"] + ";x"),
    "another digest algorithm": ("content-digest", HEADERS["content-digest"].replace("sha-256", "sha-512")),
    "two digests": ("content-digest", f"{HEADERS['content-digest']}, {HEADERS['content-digest']}"),
    "a digest with a space": ("content-digest", HEADERS["content-digest"].replace("=:", "= :", 1)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_any_other_form_is_refused(case: str) -> None:
    field, value = OTHERS[case]
    assert value != HEADERS[field]
    with pytest.raises(IntegrityError) as caught:
        check({**HEADERS, field: value})
    assert (caught.value.code, caught.value.field) == (SIGNATURE_MALFORMED, field)


def test_a_signature_has_one_spelling() -> None:
    """The last character of 32 bytes in base64 carries two bits that a lenient decoder drops."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value = HEADERS["signature"]
    last = alphabet.index(value[-3])
    for spelling in range(last & ~3, (last & ~3) + 4):
        headers = {**HEADERS, "signature": value[:-3] + alphabet[spelling] + value[-2:]}
        if spelling == last:
            check(headers)
        else:
            with pytest.raises(IntegrityError) as caught:
                check(headers)
            assert caught.value.code is SIGNATURE_MALFORMED


@pytest.mark.parametrize("now", [NOW - SKEW_S, NOW, NOW + LIFETIME_S + SKEW_S - 1])
def test_it_holds_within_its_time_and_the_skew(now: int) -> None:
    check(HEADERS, now=now)


@pytest.mark.parametrize("now", [0, NOW - SKEW_S - 1, NOW + LIFETIME_S + SKEW_S, NOW + 10**9])
def test_it_does_not_hold_at_another_time(now: int) -> None:
    with pytest.raises(IntegrityError) as caught:
        check(HEADERS, now=now)
    assert caught.value.code is SIGNATURE_EXPIRED


@pytest.mark.parametrize(("lifetime", "holds"), [(-1, False), (0, False), (1, True), (MAX_LIFETIME_S, True)])
def test_a_lifetime_is_bounded(lifetime: int, holds: bool) -> None:
    headers = sign(KEY, TARGET, BODY, session="s", nonce="n" * 16, now=NOW, lifetime_s=lifetime)
    if holds:
        check(headers)
    else:
        with pytest.raises(IntegrityError) as caught:
            check(headers)
        assert caught.value.code is SIGNATURE_EXPIRED


def test_a_lifetime_that_replay_protection_cannot_cover_is_refused() -> None:
    headers = sign(KEY, TARGET, BODY, session="s", nonce="n" * 16, now=NOW, lifetime_s=MAX_LIFETIME_S + 1)
    with pytest.raises(IntegrityError) as caught:
        check(headers)
    assert caught.value.code is SIGNATURE_EXPIRED


@pytest.mark.parametrize("field", ["method", "authority", "path", "query"])
def test_a_component_cannot_carry_another_line(field: str) -> None:
    """RFC 9421 section 2.5: two requests would have one signature base otherwise."""
    target = dataclasses.replace(TARGET, **{field: getattr(TARGET, field) + '\n"@query": ?'})
    with pytest.raises(IntegrityError) as caught:
        check(HEADERS, target=target)
    assert (caught.value.code, caught.value.field) == (SIGNATURE_MALFORMED, f"@{field}")


NAMES = st.sampled_from([*FIELDS, "host", ""])


@given(st.lists(st.tuples(NAMES, st.text() | st.sampled_from(list(HEADERS.values()))), max_size=6))
@example([(name, "\ud800") for name in FIELDS])
def test_arbitrary_headers_parse_to_a_signature_or_an_integrity_error(headers: list[tuple[str, str]]) -> None:
    try:
        presented = parse(fields(headers))
    except IntegrityError:
        return
    assert f"ringfence={presented.parameters}" == INPUT


@given(field=st.sampled_from(FIELDS), at=st.floats(0, 1, exclude_max=True), to=st.characters())
def test_no_character_of_a_field_can_change(field: str, at: float, to: str) -> None:
    value = HEADERS[field]
    place = int(at * len(value))
    altered = value[:place] + to + value[place + 1 :]
    if altered != value:
        with pytest.raises(IntegrityError):
            check({**HEADERS, field: altered})


@given(
    target=st.builds(Target, *[st.text("/?&ab \"'@:=", max_size=8)] * 4),
    body=st.binary(max_size=8),
)
def test_every_component_counts(target: Target, body: bytes) -> None:
    """Whatever the values are made of, a signature for one request holds for no other."""
    headers = sign(KEY, target, body, session="s", nonce="n" * 16, now=NOW, lifetime_s=1)
    check(headers, target=target, body=body)
    assert len(COVERED) == len(dataclasses.fields(Target)) + 1
    for field in dataclasses.fields(Target):
        other = dataclasses.replace(target, **{field.name: getattr(target, field.name) + "x"})
        with pytest.raises(IntegrityError):
            check(headers, target=other, body=body)
