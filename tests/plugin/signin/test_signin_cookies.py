"""Cookies and forged requests: what a browser may send, and what another site can make it send."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import RingfenceError
from ringfence.plugin.signin import cookies, csrf, flow
from ringfence.plugin.signin.errors import SignInError

KEY, ORIGIN, SESSION = bytes(range(32)), "https://console.example", "session-1"
TOKEN = csrf.token(KEY, SESSION, bytes(16))
SENT = f"{cookies.SESSION}={SESSION}; {cookies.FORGERY}={TOKEN}"
GOOD = (("cookie", SENT), ("origin", ORIGIN), ("sec-fetch-site", "same-origin"), (csrf.FIELD, TOKEN))


def protect(*headers: tuple[str, str], method: str = "POST", submitted: str = "") -> None:
    csrf.protect(method, headers, key=KEY, origin=ORIGIN, submitted=submitted)


def without(name: str) -> list[tuple[str, str]]:
    return [field for field in GOOD if field[0] != name]


def test_a_page_of_ours_may_change_something_and_anybody_may_read() -> None:
    protect(*GOOD)
    protect(*without("origin"))
    protect(*without("sec-fetch-site"))
    protect(*without(csrf.FIELD), submitted=TOKEN)
    for method in ("GET", "HEAD", "OPTIONS"):
        protect(method=method)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        without("cookie"),
        without(csrf.FIELD),
        [field for field in without("origin") if field[0] != "sec-fetch-site"],
        [*without("origin"), ("origin", "https://evil.example")],
        [*without("origin"), ("origin", "null")],
        [*without("origin"), ("origin", ORIGIN + ":444")],
        [*GOOD, ("origin", ORIGIN)],
        [*GOOD, (csrf.FIELD, TOKEN)],
        [*without("sec-fetch-site"), ("sec-fetch-site", "cross-site")],
        [*without("sec-fetch-site"), ("sec-fetch-site", "same-site")],
        [*without("sec-fetch-site"), ("sec-fetch-site", "none")],
        [*without(csrf.FIELD), (csrf.FIELD, csrf.token(KEY, SESSION, bytes(15) + b"x"))],
        [*without(csrf.FIELD), (csrf.FIELD, "\u00e9")],
    ],
)
def test_another_site_may_not(headers: list[tuple[str, str]]) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "get"):
        with pytest.raises(SignInError) as refused:
            protect(*headers, method=method)
        assert refused.value.code.name == "signin.request_forged"


@pytest.mark.parametrize(
    "token",
    [
        csrf.token(KEY, "session-2", bytes(16)),
        csrf.token(bytes(32), SESSION, bytes(16)),
        TOKEN[:-4] + "AAAA",
        base64.urlsafe_b64encode(bytes(48)).decode(),
        base64.urlsafe_b64encode(b"short").decode(),
        "A",
    ],
)
def test_a_planted_pair_of_cookie_and_token_is_of_no_use(token: str) -> None:
    sent = ("cookie", f"{cookies.SESSION}={SESSION}; {cookies.FORGERY}={token}")
    with pytest.raises(SignInError) as refused:
        protect(sent, ("origin", ORIGIN), (csrf.FIELD, token))
    assert refused.value.code.name == "signin.request_forged"


def test_cookies_are_found_among_others() -> None:
    headers = [("cookie", "a=b;  " + SENT), ("accept", "*/*"), ("cookie", 'other="x y"; c')]
    assert cookies.read(headers, cookies.SESSION) == SESSION
    assert cookies.read(headers, "absent") == cookies.read([], "absent") == ""


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("a=" + "b" * 8192, "signin.cookies_too_large"),
        ("; ".join(f"c{number}=1" for number in range(65)), "signin.cookies_too_large"),
        (f"{cookies.SESSION}=1; {cookies.SESSION}=2", "signin.cookies_malformed"),
        (f"{cookies.SESSION}=a b", "signin.cookies_malformed"),
        (f"{cookies.SESSION}=\u00e9", "signin.cookies_malformed"),
        (f"{cookies.SESSION}=" + "a" * 3073, "signin.cookies_malformed"),
    ],
)
def test_huge_doubled_or_odd_cookies_are_refused(line: str, code: str) -> None:
    with pytest.raises(SignInError) as refused:
        cookies.read([("cookie", line)], cookies.SESSION)
    assert refused.value.code.name == code


@given(st.text(max_size=300))
def test_no_cookie_raises_anything_else(line: str) -> None:
    headers = [("cookie", line), ("origin", ORIGIN)]
    for decode in (lambda: protect(*headers), lambda: flow.reopen(line, key=KEY, now=0)):
        with pytest.raises(RingfenceError):
            decode()


@given(st.text(st.sampled_from("/\\.%:?#@ab\t\n"), max_size=8))
def test_a_path_to_return_to_leads_nowhere_else(text: str) -> None:
    try:
        path = flow.local_path(text)
    except SignInError:
        return
    assert path[0] == "/"
    assert path[1:2] not in {"/", "\\"}
    assert not set(path) & set("\\\t\n#")
