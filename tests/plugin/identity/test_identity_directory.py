"""Directories: files, SCIM servers, and what counts of them once they are away or stale."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import RingfenceError
from ringfence.plugin.identity import directory_file, scim_pages
from ringfence.plugin.identity.directory import Directory, Entry, KeptDirectory
from ringfence.plugin.identity.errors import IdentityError
from ringfence.plugin.identity.factors import directory
from ringfence.plugin.identity.fetching import HttpsFetcher
from ringfence.plugin.identity.scim import ScimSource
from ringfence.plugin.identity.settings import FileDirectorySettings, ScimDirectorySettings
from tests.plugin.identity.certificates import NOW
from tests.plugin.identity.servers import Asked, Reply, serving

TOML = b"""
version = 1

[[principal]]
name = "alice"
tenant = "physics"
groups = ["gpu-users", "staff", "staff"]
attributes = { department = "quantum" }

[[principal]]
name = "bob"
"""
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


async def test_a_file_says_tenant_groups_and_attributes_until_it_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "directory.toml"
    path.write_bytes(TOML)
    held = directory(FileDirectorySettings(path, max_age_s=60))
    port: Directory = held
    assert port.lookup("alice", NOW) == Entry()
    await held.refresh(now=NOW)
    alice = Entry("physics", ("gpu-users", "staff"), ("department=quantum",), NOW)
    assert held.lookup("alice", NOW + 59) == alice
    assert held.lookup("bob", NOW) == held.lookup("nobody", NOW) == Entry(fetched_at=NOW)

    path.write_bytes(b"version = 1\n[[principal]]\nname = 1\n")
    await held.refresh(now=NOW + 30)
    assert held.fault is not None
    assert held.lookup("alice", NOW + 59) == alice
    # Stale, or read at a time that has not come: nobody has a group.
    assert held.lookup("alice", NOW + 60) == held.lookup("alice", NOW - 60) == Entry()
    path.write_bytes(TOML)
    await held.refresh(now=NOW + 61)
    assert held.fault is None
    assert held.lookup("alice", NOW + 61).groups == ("gpu-users", "staff")


async def test_a_file_that_others_may_write_gives_no_rights(tmp_path: Path) -> None:
    path = tmp_path / "directory.toml"
    path.write_bytes(TOML)
    path.chmod(0o666)
    held = directory(FileDirectorySettings(path))
    await held.refresh(now=NOW)
    assert held.fault is not None
    assert held.fault.code.name == "identity.directory_malformed"
    assert held.lookup("alice", NOW) == Entry()


def test_json_says_the_same_as_toml() -> None:
    alice = {"name": "alice", "tenant": "physics", "groups": ["gpu-users", "staff"]}
    document = {"version": 1, "principal": [{**alice, "attributes": {"department": "quantum"}}, {"name": "bob"}]}
    found = directory_file.parse(json.dumps(document).encode(), "directory.json", now=NOW)
    assert found.entries == directory_file.parse(TOML, "directory.toml", now=NOW).entries


@pytest.mark.parametrize(
    "principals",
    [
        [{"name": "alice"}, {"name": "alice"}],
        [{"name": "al\u0456ce"}],
        [{"name": ""}],
        [{"name": "alice", "groups": [""]}],
        [{"name": "alice", "groups": ["a\nb"]}],
        [{"name": "alice", "admin": True}],
        [{"name": "alice", "attributes": {"a=b": "c"}}],
        [{"name": "alice", "groups": [str(number) for number in range(257)]}],
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(principals: list[Any]) -> None:
    with pytest.raises(RingfenceError):
        directory_file.parse(json.dumps({"version": 1, "principal": principals}).encode(), "d.json", now=NOW)


class Server:
    """A SCIM server, as far as a reader needs one (RFC 7644, section 3.4.2): pages, a bearer token, and its faults."""

    def __init__(self) -> None:
        self.users: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.page = 2
        self.claims_more = 0
        self.status = 200
        self.asked: list[str] = []

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked.path)
        if asked.headers.get("authorization") != "Bearer token-of-the-gateway":
            return Reply(401)
        parts = urlsplit(asked.path)
        query = parse_qs(parts.query)
        held = {"/scim/v2/Users": self.users, "/scim/v2/Groups": self.groups}[parts.path]
        first = int(query["startIndex"][0])
        resources = held[first - 1 : first - 1 + min(self.page, int(query["count"][0]))]
        body = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": len(held) + self.claims_more,
            "itemsPerPage": len(resources),
            "startIndex": first,
            "Resources": resources,
        }
        return Reply(self.status, json.dumps(body).encode())


@pytest.fixture
def server() -> Server:
    server = Server()
    for number, name in enumerate(["alice", "bob", "carol", "al\u0456ce", "dave"]):
        server.users.append({"id": f"u{number}", "userName": name, "active": name != "carol", "externalId": number})
    server.users[0][ENTERPRISE] = {"department": "quantum", "organization": "physics"}
    server.groups = [
        {"id": "g1", "displayName": "gpu-users", "members": [{"value": "u0"}, {"value": "u2"}, {"value": "u9"}]},
        {"id": "g2", "displayName": "staff", "members": [{"value": "u0"}, {"value": "u1"}]},
        {"id": "g3", "displayName": "empty"},
    ]
    return server


def settings(url: str, folder: Path, **changes: Any) -> ScimDirectorySettings:
    token = folder / "token"
    token.write_text("token-of-the-gateway\n")
    token.chmod(0o600)
    made = ScimDirectorySettings(
        f"{url}/scim/v2/",
        token,
        tenant=f"{ENTERPRISE}:organization",
        attributes={"department": f"{ENTERPRISE}:department"},
    )
    return msgspec.structs.replace(made, **changes)


async def test_a_scim_server_is_read_page_by_page(server: Server, tmp_path: Path) -> None:
    with serving(server) as url:
        held = directory(settings(url, tmp_path))
        await held.refresh(now=NOW)
    assert held.fault is None
    assert held.lookup("alice", NOW) == Entry("physics", ("gpu-users", "staff"), ("department=quantum",), NOW)
    assert held.lookup("bob", NOW).groups == ("staff",)
    # Not active, unsafe, in no group.
    for name in ("carol", "al\u0456ce", "dave"):
        assert held.lookup(name, NOW) == Entry(fetched_at=NOW)
    assert len(server.asked) == 5


async def fault(server: Server, folder: Path, **changes: Any) -> str:
    with serving(server) as url:
        held = KeptDirectory(ScimSource(settings(url, folder, **changes), HttpsFetcher()), max_age_s=60)
        await held.refresh(now=NOW)
    assert held.fault is not None
    assert held.lookup("alice", NOW) == Entry()
    return held.fault.code.name


async def test_a_part_of_a_directory_is_nothing(server: Server, tmp_path: Path) -> None:
    server.claims_more = 1
    assert await fault(server, tmp_path) == "identity.directory_unavailable"
    server.claims_more, server.page = -1, 10
    assert await fault(server, tmp_path) == "identity.directory_unavailable"
    server.claims_more = 0
    assert await fault(server, tmp_path, max_users=4) == "identity.directory_unavailable"
    server.status = 500
    assert await fault(server, tmp_path) == "identity.fetch_failed"


async def test_two_users_with_one_name_are_refused(server: Server, tmp_path: Path) -> None:
    server.users[4]["userName"] = "bob"
    assert await fault(server, tmp_path) == "identity.directory_malformed"


async def test_a_slow_server_fails_in_time(server: Server, tmp_path: Path) -> None:
    end = threading.Event()

    def slow(asked: Asked) -> Reply:
        end.wait(10)
        return server(asked)

    with serving(slow) as url:
        held = directory(settings(url, tmp_path, timeout_s=0.1))
        await held.refresh(now=NOW)
        end.set()
    assert held.fault is not None


async def test_a_token_that_others_can_read_is_not_used(server: Server, tmp_path: Path) -> None:
    with serving(server) as url:
        source = ScimSource(settings(url, tmp_path), HttpsFetcher())
        (tmp_path / "token").chmod(0o644)
        with pytest.raises(IdentityError) as refused:
            await source.load(now=NOW)
    assert refused.value.code.name == "identity.settings_invalid"
    assert server.asked == []


async def test_an_empty_token_is_none(server: Server, tmp_path: Path) -> None:
    with serving(server) as url:
        source = ScimSource(settings(url, tmp_path), HttpsFetcher())
        (tmp_path / "token").write_text(" ")
        with pytest.raises(IdentityError):
            await source.load(now=NOW)


def test_a_value_may_be_a_number_or_a_boolean() -> None:
    user = {"a": {"b": 7, "c": True, "d": [], "e": "x\ny"}}
    assert [scim_pages.text(user, f"a.{name}") for name in "bcdef"] == ["7", "true", "", "", ""]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schemas":[],"totalResults":0}', b"[" * 9999, b"\xff"])
def test_what_is_no_page_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        scim_pages.decode(data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "userName", "displayName", "members", "value", "active"]), inner)
    ),
    max_leaves=12,
)


def resources(*names: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.dictionaries(st.sampled_from(names), JSON_VALUES), max_size=4)


@given(resources("id", "userName", "active", "name"), resources("displayName", "members"))
def test_no_resource_raises_anything_else(users: list[dict[str, Any]], groups: list[dict[str, Any]]) -> None:
    try:
        found = scim_pages.entries(users, groups, ScimDirectorySettings("https://scim.example", Path("token")))
    except RingfenceError:
        return
    assert all(name.isprintable() for name in found)
