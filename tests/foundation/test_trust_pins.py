"""The trust list as a value and as a file: look-ups, refusals, and a round trip through TOML."""

from __future__ import annotations

import base64
import os
import threading
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import ConfigError
from ringfence.crypto import key_id
from ringfence.trust import Pin, Role, TrustError, TrustList, change, emit, load, parse, save
from ringfence.trust.store import quoted

NOW = 1_800_000_000


def pin(name: str = "alice", role: Role = Role.CLIENT, key: int = 1, expires_at: int | None = None) -> Pin:
    return Pin(name, role, bytes([key]) * 1984, NOW, ("clients",) if role is Role.CLIENT else (), expires_at)


def test_a_pinned_key_is_found_in_its_role() -> None:
    alice = pin()
    assert TrustList((pin("bob", key=2), alice)).find(Role.CLIENT, alice.key_id, NOW) == alice


@pytest.mark.parametrize(
    ("held", "role", "now", "code"),
    [
        ((), Role.CLIENT, NOW, "trust.unknown_key"),
        ((pin(key=2),), Role.CLIENT, NOW, "trust.unknown_key"),
        ((pin(),), Role.GATEWAY, NOW, "trust.wrong_role"),
        ((pin(role=Role.VERIFIER),), Role.AGENT, NOW, "trust.wrong_role"),
        ((pin(expires_at=NOW),), Role.CLIENT, NOW, "trust.expired"),
        ((pin(expires_at=NOW - 1), pin(role=Role.AGENT)), Role.CLIENT, NOW, "trust.expired"),
    ],
)
def test_a_key_that_is_not_pinned_as_needed_is_refused(held: tuple[Pin, ...], role: Role, now: int, code: str) -> None:
    with pytest.raises(TrustError, match=code):
        TrustList(held).find(role, key_id(bytes([1]) * 1984), now)


def test_a_pin_counts_until_the_second_before_it_expires() -> None:
    alice = pin(expires_at=NOW + 1)
    trust = TrustList((alice,))
    assert trust.find(Role.CLIENT, alice.key_id, NOW) == alice
    assert trust.by_role(Role.CLIENT, NOW) == (alice,)
    assert trust.by_role(Role.CLIENT, NOW + 1) == ()


def test_by_role_gives_no_other_role() -> None:
    agent = pin("host", Role.AGENT, 2)
    assert TrustList((pin(), agent)).by_role(Role.AGENT, NOW) == (agent,)


def test_one_key_may_hold_two_roles() -> None:
    both = TrustList((pin("g", Role.GATEWAY), pin("g", Role.VERIFIER)))
    assert both.find(Role.VERIFIER, pin().key_id, NOW).role is Role.VERIFIER


def test_another_key_under_a_pinned_name_is_refused() -> None:
    with pytest.raises(TrustError, match=r"trust\.conflict.*another key") as caught:
        TrustList((pin("the front"),)).add(pin("the front", key=2))
    assert caught.value.hint.endswith("run: ringfence trust rotate client 'the front' FILE --state DIR")


def test_the_same_key_again_replaces_its_groups() -> None:
    again = replace(pin(), groups=("clients", "quantum-users"))
    assert TrustList((pin(),)).add(again).pins == (again,)


def test_a_second_name_for_a_pinned_key_is_refused() -> None:
    with pytest.raises(TrustError, match=r"trust\.conflict.*is pinned under the name 'alice' already") as caught:
        TrustList((pin(),)).add(pin("mallory"))
    assert caught.value.hint.endswith("run: ringfence trust remove client alice --state DIR")


def test_a_key_is_not_pinned_twice_under_one_name() -> None:
    with pytest.raises(TrustError, match=r"trust\.conflict.*twice"):
        TrustList((pin(expires_at=NOW + 1), pin()))


def changed(overlap_s: int = 100, expires_at: int | None = None) -> TrustList:
    """Alice's change from key 1 to key 2, beside somebody else."""
    held = TrustList((pin("bob", key=9), pin()))
    return held.rotate(Role.CLIENT, "alice", bytes([2]) * 1984, now=NOW, overlap_s=overlap_s, expires_at=expires_at)


def test_during_a_change_both_keys_are_the_same_person() -> None:
    trust = changed()
    old, new = pin(), pin(key=2)
    for key in (old.key_id, new.key_id):
        found = trust.find(Role.CLIENT, key, NOW + 99)
        assert (found.name, found.groups) == ("alice", ("clients",))
    assert [held.name for held in trust.by_role(Role.CLIENT, NOW + 99)] == ["bob", "alice", "alice"]
    with pytest.raises(TrustError, match=r"trust\.expired"):
        trust.find(Role.CLIENT, old.key_id, NOW + 100)
    assert trust.find(Role.CLIENT, new.key_id, NOW + 10**9) == new
    assert parse(emit(trust), "trust.toml") == trust


def test_without_an_overlap_the_old_key_is_gone() -> None:
    trust = changed(overlap_s=0)
    assert [held.key_id for held in trust.pins] == [pin("bob", key=9).key_id, pin(key=2).key_id]
    with pytest.raises(TrustError, match=r"trust\.unknown_key"):
        trust.find(Role.CLIENT, pin().key_id, NOW)


def test_a_change_never_lengthens_the_old_keys_life() -> None:
    held = TrustList((pin(expires_at=NOW + 5),))
    old, new = held.rotate(Role.CLIENT, "alice", bytes([2]) * 1984, now=NOW, overlap_s=100, expires_at=NOW + 9).pins
    assert (old.expires_at, new.expires_at) == (NOW + 5, NOW + 9)
    (only,) = held.rotate(Role.CLIENT, "alice", bytes([2]) * 1984, now=NOW + 5, overlap_s=100).pins
    assert only.public == bytes([2]) * 1984


def test_one_change_at_a_time() -> None:
    def again(now: int, overlap_s: int) -> TrustList:
        return changed().rotate(Role.CLIENT, "alice", bytes([3]) * 1984, now=now, overlap_s=overlap_s)

    with pytest.raises(TrustError, match=r"trust\.conflict.*changing its key already"):
        again(NOW + 99, 50)
    assert [held.public[0] for held in again(NOW + 100, 50).pins] == [9, 2, 3]
    # After a theft there is no waiting: both earlier keys stop at once.
    assert [held.public[0] for held in again(NOW + 1, 0).pins] == [9, 3]


@pytest.mark.parametrize("key", [1, 2])
def test_a_change_to_a_key_that_the_name_has_is_refused(key: int) -> None:
    with pytest.raises(TrustError, match=r"trust\.conflict.*has this key already"):
        changed().rotate(Role.CLIENT, "alice", bytes([key]) * 1984, now=NOW + 200, overlap_s=100)


def test_a_change_to_somebody_elses_key_or_of_nobody_is_refused() -> None:
    with pytest.raises(TrustError, match=r"trust\.conflict.*under the name 'bob'"):
        TrustList((pin("bob", key=9), pin())).rotate(Role.CLIENT, "alice", bytes([9]) * 1984, now=NOW, overlap_s=1)
    with pytest.raises(TrustError, match=r"trust\.no_such_pin"):
        TrustList((pin(),)).rotate(Role.AGENT, "alice", bytes([2]) * 1984, now=NOW, overlap_s=1)


def test_two_keys_of_a_name_that_are_no_change_of_key_are_refused() -> None:
    for held in (
        (pin(), pin(key=2)),
        (pin(), pin(key=2, expires_at=NOW)),
        (pin(expires_at=NOW), pin(key=2, expires_at=NOW), pin(key=3)),
    ):
        with pytest.raises(TrustError, match=r"trust\.conflict.*no overlap that ends"):
            TrustList(held)


def test_adding_a_key_again_during_a_change_touches_that_key_alone() -> None:
    again = replace(pin(key=2), groups=("clients", "quantum-users"))
    bob, old, new = changed().add(again).pins
    assert (bob.name, old.public, new) == ("bob", pin().public, again)
    with pytest.raises(TrustError, match=r"trust\.conflict.*no overlap that ends"):
        changed().add(pin())  # the old key, without its end
    with pytest.raises(TrustError, match=r"trust\.conflict.*another key"):
        changed().add(pin(key=3))


def test_removing_a_name_removes_both_of_its_keys() -> None:
    assert [held.name for held in changed().remove(Role.CLIENT, "alice").pins] == ["bob"]


def test_a_look_up_computes_no_key_id() -> None:
    """Ids are computed when a pin is made; a list of thousands is looked up like a list of one."""
    many = TrustList(tuple(pin(f"client-{number}", key=number) for number in range(256)))
    wanted = pin(key=200).key_id
    assert many.find(Role.CLIENT, wanted, NOW) is many.pins[200]


def test_removing_a_pin_that_is_not_there_is_an_error() -> None:
    trust = TrustList((pin(),))
    assert trust.remove(Role.CLIENT, "alice") == TrustList()
    with pytest.raises(TrustError, match=r"trust\.no_such_pin"):
        trust.remove(Role.AGENT, "alice")


@pytest.mark.parametrize(
    ("name", "role", "size", "groups", "expires_at"),
    [
        ("", Role.CLIENT, 1984, (), None),
        ("a" * 129, Role.CLIENT, 1984, (), None),
        ("a\nb", Role.CLIENT, 1984, (), None),
        ("a\x1b[2J", Role.CLIENT, 1984, (), None),
        ("a\u202eb", Role.CLIENT, 1984, (), None),  # right-to-left override: a name that reads as another
        ("a", Role.CLIENT, 1983, (), None),
        ("a", Role.CLIENT, 0, (), None),
        ("a", Role.CLIENT, 1984, ("",), None),
        ("a", Role.CLIENT, 1984, ("g", "g"), None),
        ("a", Role.CLIENT, 1984, tuple(f"g{n}" for n in range(65)), None),
        ("a", Role.AGENT, 1984, ("clients",), None),
        ("a", Role.CLIENT, 1984, (), -1),
        ("a", Role.CLIENT, 1984, (), 1 << 60),
    ],
)
def test_a_pin_that_cannot_be_meant_is_refused(
    name: str, role: Role, size: int, groups: tuple[str, ...], expires_at: int | None
) -> None:
    with pytest.raises(TrustError, match=r"trust\.malformed"):
        Pin(name, role, bytes(size), NOW, groups, expires_at)


ODD = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Cn", "Co", "Zs", "Zl", "Zp")) | st.just(" "),
              min_size=1, max_size=20).filter(str.isprintable)  # fmt: skip
TIMES = st.integers(0, 253_402_300_799)


@st.composite
def pins(draw: st.DrawFn) -> Pin:
    role = draw(st.sampled_from(Role))
    groups = tuple(draw(st.lists(ODD, max_size=3, unique=True))) if role is Role.CLIENT else ()
    public = draw(st.binary(min_size=8, max_size=8)) * 248
    return Pin(draw(ODD), role, public, draw(TIMES), groups, draw(st.none() | TIMES))


@given(st.lists(pins(), max_size=4, unique_by=(lambda p: (p.role, p.name), lambda p: (p.role, p.public))))
def test_every_list_comes_back_from_its_file_unchanged(held: list[Pin]) -> None:
    trust = TrustList(tuple(held))
    assert parse(emit(trust), "trust.toml") == trust


@given(st.text())
def test_every_text_comes_back_from_its_toml_string(text: str) -> None:
    assert tomllib.loads(f"key = {quoted(text)}") == {"key": text}


@given(st.binary())
def test_arbitrary_bytes_are_refused_or_are_a_list(data: bytes) -> None:
    with pytest.raises((ConfigError, TrustError)):
        parse(data, "trust.toml")


def entry(key: bytes = bytes([1]) * 1984, **changed: str) -> str:
    lines = {
        "name": '"alice"',
        "role": '"client"',
        "key_id": f'"{key_id(key)}"',
        "public_key": f'"{base64.b64encode(key).decode()}"',
        "added_at": "1",
        **changed,
    }
    return "[[pin]]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("version = 1\n" + entry(trusted="true"), "config.unknown_key", 8),
        ("version = 1\n\n" + entry(role='"root"'), "config.bad_value", 5),
        ("version = 1\n" + entry(added_at="-1"), "config.bad_value", 7),
        ("version = 1\n" + entry(added_at="1.5"), "config.bad_value", 7),
        ("version = 1\n" + entry(public_key='"?"'), "config.bad_value", 6),
        ("version = 2\n", "config.bad_value", 1),
        (entry(), "config.missing_key", None),
        ("version = 1\n" + entry(public_key='"AAAA"'), "trust.malformed", None),
        ("version = 1\n" + entry(key_id='"' + key_id(b"another") + '"'), "trust.malformed", None),
        ("version = 1\n" + entry(name='"a\\u001b[2J"'), "trust.malformed", None),
        ("version = 1\n" + entry() + entry(bytes([2]) * 1984), "trust.conflict", None),
        ("version = 1\n" + entry() + entry(name='"eve"'), "trust.conflict", None),
    ],
)
def test_a_trust_file_that_cannot_be_meant_is_refused(text: str, code: str, line: int | None) -> None:
    with pytest.raises((ConfigError, TrustError)) as caught:
        parse(text.encode(), "trust.toml")
    assert caught.value.code.name == code
    assert caught.value.message.startswith("trust.toml:")
    if line is not None:
        assert caught.value.message.startswith(f"trust.toml:{line}:")


def test_the_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    previous = os.umask(0)
    try:
        save(path, TrustList((pin(),)))
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.stat().st_ino
    save(path, TrustList())
    assert path.stat().st_ino != before
    assert load(path) == TrustList()
    assert [file.name for file in tmp_path.iterdir()] == ["trust.toml"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_list_that_others_may_write_is_not_believed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "trust.toml"
    save(path, TrustList((pin(),)))
    path.chmod(mode)
    with pytest.raises(TrustError, match=r"trust\.unsafe_file"):
        load(path)


def test_a_missing_list_is_an_error_and_not_an_empty_list(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"trust\.missing_file"):
        load(tmp_path / "trust.toml")


def test_a_fifo_or_a_folder_in_its_place_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(TrustError, match=r"trust\.unsafe_file"):
            load(path)


def test_a_refused_change_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    change(path, lambda trust: trust.add(pin()))
    before = path.read_bytes()
    with pytest.raises(TrustError, match=r"trust\.conflict"):
        change(path, lambda trust: trust.add(pin(key=2)))
    assert path.read_bytes() == before


def test_a_change_in_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"trust\.missing_file.*the folder"):
        change(tmp_path / "nowhere" / "trust.toml", lambda trust: trust)


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    start = threading.Barrier(8)

    def add(number: int) -> None:
        start.wait()
        change(path, lambda trust: trust.add(pin(f"client-{number}", key=number)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load(path).pins) == 8
