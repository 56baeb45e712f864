"""Our reader of Cedar text agrees with Cedar about where policies begin, end and what they are called."""

from __future__ import annotations

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.policies.errors import PolicyError
from ringfence.policies.tokens import MAX_NESTING, MAX_OPERATORS, statements

MARKS = ("@id(", '"', '"a"', ")", "(", "permit", "forbid", ";", "//", "\\", "{", "}", "[", "]", "&&", "?", "\n", "\r")
BLANKS = st.sampled_from([" ", "\n", "\t", '// ; ) "\n', "//\r", "  // } // {\n", "\r\n"])
LITERALS = st.sampled_from(
    ['""', '";"', '"//"', r'"\""', r'"\\"', '"}{)("', r'"\u{1f600}"', '"\n"', '"@id"', '"permit"']
)
WORDS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)


@st.composite
def policies(draw: st.DrawFn) -> str:
    pieces = ["@", "id", "(", f'"{draw(WORDS)}"', ")", "@", "description", "(", '"why // ; not"', ")"]
    pieces += [draw(st.sampled_from(["permit", "forbid"])), "(", "principal", ",", "action", ",", "resource", ")"]
    for literal in draw(st.lists(LITERALS, max_size=3)):
        pieces += ["when", "{", "[", literal, "]", ".", "contains", "(", literal, ")", "}"]
    pieces.append(";")
    return "".join(piece + draw(BLANKS) for piece in pieces)


@given(texts=st.lists(policies(), max_size=4))
def test_reader_agrees_with_cedar(texts: list[str]) -> None:
    ours = statements("".join(texts), "f")
    cedar = cedarpy.PolicySet.from_str("".join(texts)).to_pst().static_policies
    assert [statement.id for statement in ours] == [
        cedar[f"policy{index}"].annotations["id"] for index in range(len(texts))
    ]
    assert [statement.effect for statement in ours] == [cedar[f"policy{index}"].effect for index in range(len(texts))]
    for index, statement in enumerate(ours):
        alone = cedarpy.PolicySet.from_str(statement.text).to_pst().static_policies
        assert alone["policy0"].clauses == cedar[f"policy{index}"].clauses


@given(text=st.lists(st.sampled_from(MARKS) | st.text(max_size=3), max_size=60).map("".join))
def test_any_text_is_split_or_refused_with_its_line(text: str) -> None:
    try:
        found, line = statements(text, "f"), 1
    except PolicyError as error:
        found, line = (), int(error.field.removeprefix("f:"))
    assert 1 <= line <= text.count("\n") + 1
    assert all(statement.text in text for statement in found)


def test_limits_admit_their_last_value_and_cedar_survives_it() -> None:
    head = '@id("x") @description("d") permit (principal, action, resource) when { '
    deep = head + "(" * (MAX_NESTING - 1) + "true" + ")" * (MAX_NESTING - 1) + " };"
    long = head + " && ".join(["true"] * MAX_OPERATORS) + " };"
    for text in (deep, long):
        assert len(cedarpy.PolicySet.from_str(statements(text, "f")[0].text)) == 1
    with pytest.raises(PolicyError, match="nest deeper"):
        statements(deep.replace("true", "(true)"), "f")
    with pytest.raises(PolicyError, match="operators"):
        statements(long.replace(" };", " && true };"), "f")
