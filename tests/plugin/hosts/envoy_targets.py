"""Spellings of a path that some program on the way may read differently: encoded, dotted, doubled, mixed."""

from __future__ import annotations

from collections.abc import Iterator

_SEGMENTS = (
    "..",
    ".",
    "...",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%2e",
    "%252e%252e",
    "..;",
    "..;x=1",
    "%2e%2e;",
    "%00",
    "%0d%0a",
)
_SLASHES = ("//", "///", "/./", "/../", "%2f", "%2F", "%5c", "%5C", "\\", "/%2f/", "%252f", "%255c", "/\\/", "%c0%af")
_LETTERS = (
    "%61dmin",
    "%41dmin",
    "adm%69n",
    "ADMIN",
    "admi%6E",
    "adm%C4%B1n",
    "adm\xc4\xb1n",
    "admin%20",
    "admin%09",
    "admin.",
)
_QUERIES = (
    "?",
    "??",
    "?a",
    "?a=1&a=2",
    "?a=%2e%2e",
    "?a=//b",
    "?/../admin",
    "?a=%3f",
    "?a=1#b",
    "%3fa=1",
    "?a=%00",
    "?a=b;c",
    "?a=\xe9",
)
_OTHERS = (
    *("*", "", "admin", "http://localhost/admin", "http://other/admin", "https://localhost/admin", "//other/admin"),
    *(
        "http://user@localhost/admin",
        "/admin#fragment",
        "/#/../admin",
        "/admin;v=1",
        "/;/admin",
        "/admin;/..",
        "/%",
        "/%4",
        "/%zz",
    ),
    *(
        "/%u002e%u002e/admin",
        "/admin\t",
        "/ad min",
        "/admin\x01",
        "/admin\x7f",
        "/\xff",
        "/admin%ff",
        "/~admin",
        "/%7eadmin",
    ),
    *(
        "/admin?%0d%0aHost:%20other",
        "/admin%0d%0aX-Ringfence-Assertion:%201",
        "/:admin",
        "/admin:",
        "/@admin",
        "/[admin]",
    ),
    *(
        "/admin|x",
        '/"admin"',
        "/<admin>",
        "/{admin}",
        "/^admin",
        "/`admin`",
        "/admin,public",
        "/admin=1",
        "/+admin",
        "/$admin",
    ),
)


def variants() -> Iterator[str]:
    """At least 200 targets, as they go into a request line."""
    for segment in _SEGMENTS:
        yield from (
            f"/{segment}/admin",
            f"/public/{segment}/admin",
            f"/public/{segment}",
            f"/{segment}",
            f"/a/b/{segment}/{segment}/c",
        )
    for slash in _SLASHES:
        yield from (
            f"{slash}admin",
            f"/public{slash}admin",
            f"/public/admin{slash}",
            f"/{slash}{slash}admin",
            f"/a{slash}..{slash}admin",
        )
    for letters in _LETTERS:
        yield from (f"/{letters}", f"/public/../{letters}", f"//{letters}")
    for query in _QUERIES:
        yield from (f"/admin{query}", f"/public/../admin{query}")
    yield from _OTHERS
