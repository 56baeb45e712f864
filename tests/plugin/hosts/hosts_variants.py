"""More than 200 ways to write a target, each of which some program reads in another way than some other."""

from __future__ import annotations

_SEGMENTS = (
    "..", ".", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "%2e", "...", "..;", "..;x=1", "%2e%2e;", "..%2f", "..%2F..", "%2f",
    "%2F%2F",
    "%5c", "%5C..", "..%5c", "\\", "..\\", "%252e%252e", "%252f", "%25", "%", "%z", "%zz", "%2", "%00", "%0a", "%0d%0a",
    "%09", "%20", "+", "%2b", "%7f", "%80", "%c0%ae", "%c0%af", "%e2%80%ae", "%uff0e", "\xe9", "%c3%a9", "%C3%A9",
    "a%2fb", "a;b", "a,b", "a=b", "a:b", "a@b", "a&b", "a'b", "a*b", "a(b)", "a!b", "a$b", "a~b", "a%7eb", "%41", "%61",
    "a|b", "a^b", "a`b", "a{b}", "a[b]", "a<b>", 'a"b', "a%22b", "%3f", "%23", "%3b", "%3d", "%40", "%2c",
)  # fmt: skip
_FRAMES = ("/{0}", "/a/{0}/b", "/a/{0}", "//{0}//b")
_WHOLE = (
    "//", "///", "/a//b", "//a", "/a/", "/a//", "/./a", "/a/.", "/a/..", "/?", "/a?", "/a??", "/a?b?c", "/a?b=%2e%2e",
    "/a?b=/../c", "/a?%00", "/a?b=%0a", "/a?b;c", "/a?b&&c", "/a?b=c=d", "/a?b=+", "/a?b= c", "/a?b=\xe9", "/a?b=[c]",
    "/a?b={c}", "/a?b=<c>", "/a?b='c'", '/a?b="c"', "/a?b|c", "/a?b\\c", "/a?b^c", "/a#b", "/a?b#c", "/#", "/%23",
    "a", "", "*", "?", "?a", "#", "../", ".", "http://h.test/a", "http://other.test/a", "HTTP://h.test/a",
    "https://h.test/a",
    "http://h.test", "http://h.test?a", "http://user@h.test/a", "//h.test/a", "h.test:80", "/a%2Fb/%2e%2e/c",
    "/A/b", "/a b",
    "/a\tb", "/;", "/;/a", "/a;/../b", "/a/%2e%2e%2fb", "/a%3fb", "/a%3Fb?c", "/_ringfence", "/_ringfence/",
    "/%5fringfence",
    "/" + "a" * 4000, "/" + "a" * 9000, "/a?" + "b" * 9000, "/" + "../" * 50, "/" + "%2e%2e/" * 50, "/" + "/" * 300,
)  # fmt: skip

VARIANTS: tuple[str, ...] = (*(frame.format(one) for frame in _FRAMES for one in _SEGMENTS), *_WHOLE)
