"""Names that may stand for somebody, and look-alikes that may not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.plugin.identity.errors import IdentityError
from ringfence.plugin.identity.names import MAX_NAME, checked
from ringfence.plugin.identity.port import Proven
from ringfence.plugin.identity.settings import SubjectSettings
from ringfence.plugin.identity.subjects import SubjectMap


@pytest.mark.parametrize(
    "name",
    [
        "alice",
        "alice@example.org",
        "spiffe://example.org/ns/jobs",
        "https://issuer.example#00u1",
        "Zo\u00eb M\u00fcller",
        "\u0418\u0432\u0430\u043d \u041f\u0435\u0442\u0440\u043e\u0432",
        "\u5c71\u7530\u592a\u90ce",
        "\u30e4\u30de\u30c0\u5c71\u7530",
    ],
)
def test_a_name_in_one_script_is_a_name(name: str) -> None:
    assert checked(name, field="subject") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " alice",
        "alice ",
        "ali\nce",
        "ali\0ce",
        "a" * (MAX_NAME + 1),
        "al\u0456ce",  # a Ukrainian i among Latin letters
        "\u0430\u0441\u0435",  # "ace", all of it Cyrillic
        "\u039f\u03a1\u0391",  # "OPA", all of it Greek
        "alice\u200d",  # a joiner
        "alice\u202eecila",  # right to left from here
        "\u2066alice\u2069",
        "alice\u00ad",  # a soft hyphen
        "zoe\u0308",  # not composed
        "\uff41lice",  # full width
        "alice\ufeff",
        "alice\ud800",
        "alice\ue000",
    ],
)
def test_what_imitates_or_hides_is_no_name(name: str) -> None:
    with pytest.raises(IdentityError) as refused:
        checked(name, field="subject")
    assert refused.value.code.name == "identity.name_unsafe"


@given(st.text(max_size=30))
def test_what_is_a_name_has_one_spelling_and_nothing_invisible(text: str) -> None:
    try:
        name = checked(text, field="subject")
    except IdentityError:
        return
    assert unicodedata.normalize("NFKC", name) == name
    assert name.isprintable()


def proven(factor: str, subject: str) -> Proven:
    return Proven(factor, subject, True, 1)


def test_subjects_are_mapped_exactly_and_only_as_configured() -> None:
    subjects = SubjectMap.of(
        [
            SubjectSettings("alice", "oidc", "https://issuer.example#1"),
            SubjectSettings("alice", "device", "rf1device"),
            SubjectSettings("bob", "device", "rf1device"),
        ],
        named=["webauthn"],
    )
    assert subjects.principals(proven("oidc", "https://issuer.example#1")) == {"alice"}
    assert subjects.principals(proven("device", "rf1device")) == {"alice", "bob"}
    assert subjects.principals(proven("webauthn", "carol")) == {"carol"}
    for factor, subject in [
        ("oidc", "https://issuer.example#01"),
        ("oidc", "https://Issuer.example#1"),
        ("svid", "https://issuer.example#1"),
        ("oidc", "alice"),
    ]:
        with pytest.raises(IdentityError) as refused:
            subjects.principals(proven(factor, subject))
        assert refused.value.code.name == "identity.subject_unknown"
    with pytest.raises(IdentityError) as unsafe:
        subjects.principals(proven("webauthn", "c\u0430rol"))
    assert unsafe.value.code.name == "identity.name_unsafe"


def test_a_line_that_stands_twice_is_a_mistake() -> None:
    line = SubjectSettings("alice", "device", "rf1device")
    with pytest.raises(IdentityError) as refused:
        SubjectMap.of([line, line])
    assert refused.value.code.name == "identity.settings_invalid"
