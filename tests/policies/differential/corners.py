"""Expressions at the edges of Cedar's operators, each of which cedarpy is asked as well."""

from __future__ import annotations

from typing import Any

import cedarpy

from ringfence.policies.compiled.programs import Outcome
from ringfence.policies.compiled.values import Entity, RecordValue, Request, Uid
from tests.policies.differential.cedar_worlds import World, outcome

EXPRESSIONS = r"""
1 == true
[1, true].contains(true)
[1].contains(true)
[true] == [1]
{a: 1} == {a: true}
[[1], [1, 1]] == [[1]]
[1, 2] == [2, 1]
{a: 1, b: 2} == {b: 2, a: 1}
"1" == 1
1 != 1
1 != 2
1 < 1
1 <= 1
1 > 1
1 >= 1
1 < true
true < 1
"a" < "b"
[1] < [2]
9223372036854775807 + 1 > 0
(-9223372036854775808) - 1 < 0
4611686018427387904 * 2 > 0
-context.min == 0
9223372036854775807 + 0 > 0
context.one + 1 == 2
context.one - 2 == -1
context.two * 3 == 6
-context.one == -1
principal in principal
principal in G::"g"
principal in [1]
principal in [principal, 1]
principal in [G::"x", G::"top"]
principal in []
1 in principal
principal in [G::"x", G::"y"]
U::"absent" in U::"absent"
U::"absent" in G::"g"
principal is U
principal is G
1 is U
principal is U in G::"g"
principal is G in 1
principal is U in 1
U::"absent" has a
1 has a
{a: 1} has a
{a: 1} has b
principal has a
principal has z
U::"absent".a == 1
principal.z == 1
principal.a == 1
{a: 1}.b == 1
{"a b": 1}["a b"] == 1
principal.hasTag("t")
principal.hasTag("z")
principal.hasTag(1)
U::"absent".hasTag("t")
1 has a.b
principal.getTag("t") == 1
principal.getTag("z") == 1
principal.getTag("z") == ""
{a: 1} has a.b
[].containsAll([])
[1].containsAll([])
[].containsAny([])
[1].containsAny([])
[1, 2].containsAll([1])
[1].containsAll([1, 2])
[1].containsAny([1, 2])
[1].containsAll(1)
1.contains(1)
[].isEmpty()
[0].isEmpty()
1.isEmpty()
[context.one, true].contains(true)
[context.one].contains(true)
context.text like "a*"
context.text like "*b"
context.text like "a\*b"
context.text like "ab"
"aXb" like "a*b"
"ab" like "ab*b"
"abb" like "ab*b"
"xaby" like "*ab*"
"axbxc" like "a*b*c"
"a\nb" like "a*b"
1 like "*"
"" like ""
"" like "*"
"AB" like "ab"
"acb" like "a*b*c"
false && 1
true && 1
true || 1
false || 1
context.yes && 1
context.no && 1
context.yes || 1
1 && context.no
1 || context.yes
!1
!context.yes
!context.no
context.one && context.no
if context.yes then true else 1
if context.no then 1 else true
if 1 then true else true
1
"true"
ip("1.2.3.4") == ip("1.2.3.4/32")
ip("10.0.0.1/24") == ip("10.0.0.0/24")
ip("1.2.3.4/08").isIpv4()
ip("127.0.0.0/7").isLoopback()
ip("127.0.0.1").isLoopback()
ip("::1/127").isLoopback()
ip("::1").isLoopback()
ip("224.0.0.0/3").isMulticast()
ip("224.0.0.0/4").isMulticast()
ip("ff00::/7").isMulticast()
ip("ff00::/8").isMulticast()
ip("::1").isIpv4()
ip("::1").isIpv6()
ip("10.0.0.1").isInRange(ip("10.0.0.0/8"))
ip("10.0.0.0/8").isInRange(ip("10.0.0.1"))
1.isIpv4()
ip("::1").isInRange(ip("0.0.0.0/0"))
ip("0.0.0.0/0").isInRange(ip("::/0"))
ip("1.2.3").isIpv4()
ip("10.1.2.3/8") == ip("10.1.2.3")
ip("1.2.3.4") == "1.2.3.4"
ip("11.0.0.0").isInRange(ip("10.0.0.0/8"))
decimal("1.5") == decimal("1.50")
decimal("-1.5") == decimal("1.5")
decimal("1.") == decimal("1.0")
decimal("922337203685477.5808") == decimal("0.0")
decimal("1.5").lessThan(decimal("1.50"))
decimal("1.5").lessThanOrEqual(decimal("1.50"))
decimal("1.5").greaterThan(decimal("1.50"))
decimal("1.5").greaterThanOrEqual(decimal("1.50"))
decimal("1.5").lessThan(decimal("1.05"))
decimal("1.05").lessThan(decimal("1.5"))
decimal("1.0") < decimal("2.0")
decimal("-0.5").lessThan(decimal("0.0"))
datetime("2023-02-29") == datetime("2023-03-01")
datetime("2024-02-29") < datetime("2024-03-01")
datetime("2024-01-01T00:00:00+0100") == datetime("2023-12-31T23:00:00Z")
datetime("2024-01-01") < duration("1d")
datetime("1969-12-31T23:00:00Z").toDate() == datetime("1969-12-31")
datetime("2024-01-01T24:00:00Z").toTime() == duration("0ms")
datetime("1969-12-31T23:00:00Z").toTime() == duration("23h")
duration("-1500ms").toSeconds() == -1
duration("-1d2h") == duration("-26h")
duration("-36h").toDays() == -1
duration("-1ms").toMilliseconds() == -1
duration("90m").toHours() == 1
duration("90s").toMinutes() == 1
duration("1h1d") == duration("25h")
datetime("1970-01-01").offset(duration("1d")) == datetime("1970-01-02")
duration("") == duration("0ms")
datetime("9999-12-31").offset(duration("9223372036854775807ms")) > datetime("1970-01-01")
duration("1d") < duration("25h")
datetime("1970-01-02").durationSince(datetime("1970-01-01")) == duration("1d")
duration("106751991168d") > duration("0ms")
datetime("2000-02-29") == datetime("2000-03-01").offset(duration("-1d"))
datetime("1900-02-29") == datetime("1900-03-01")
context.nothing == 1
context has nothing
context has one
context.nothing || true
true || context.nothing
decimal("2.0").greaterThan(decimal("1.9999"))
decimal("1.0").greaterThanOrEqual(decimal("1.0001"))
1.toDate() == 1
1.toTime() == 1
1.toMilliseconds() == 1
1.toSeconds() == 1
1.toMinutes() == 1
1.toHours() == 1
1.toDays() == 1
1.durationSince(1) == 1
"a".offset(duration("1d")) == 1
context == context
context == {}
principal == resource
principal == principal
action == action
""".strip().splitlines()


def corners() -> World:
    """Each expression as a permit; the ids are the expressions' places."""
    text = "\n".join(f"permit (principal, action, resource) when {{ {expression} }};" for expression in EXPRESSIONS)
    text += "\nforbid (principal, action, resource) unless { context.yes };"
    handle = cedarpy.PolicySet.from_str(text)
    user, group, top = Uid("U", "a"), Uid("G", "g"), Uid("G", "top")
    context = {"one": 1, "two": 2, "min": -(2**63), "yes": True, "no": False, "text": "a*b"}
    entities = {
        user: Entity(RecordValue({"a": 1}), {"t": 1}, frozenset({group, top})),
        group: Entity(ancestors=frozenset({top})),
        top: Entity(),
    }
    document: list[dict[str, Any]] = [
        {"uid": _json(user), "attrs": {"a": 1}, "tags": {"t": 1}, "parents": [_json(group)]},
        {"uid": _json(group), "attrs": {}, "parents": [_json(top)]},
        {"uid": _json(top), "attrs": {}, "parents": []},
    ]
    request = Request(user, Uid("Action", "read"), Uid("R", "r"), RecordValue(context), entities)
    asked = {"principal": _json(user), "action": _json(request.action), "resource": _json(request.resource)}
    expected: Outcome = outcome(cedarpy.is_authorized({**asked, "context": context}, handle, document))
    return World(text, handle.to_pst(), (request,), (expected,))


def _json(uid: Uid) -> dict[str, str]:
    return {"type": uid.type, "id": uid.id}
