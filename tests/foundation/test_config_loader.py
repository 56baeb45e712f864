"""The strict TOML loader: what it accepts, and the line it names for everything else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import ConfigError, KeyId, PcrIndex, Sha256, SocketPath, effective, load, parse
from ringfence.config.positions import key_lines
from ringfence.config.values import MAX_SOCKET_PATH
from ringfence.errors import Kind


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    memory_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 1 << 20
    ratio: float = 0.5


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    socket: Path


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    component: ClassVar[str] = "sample"
    example: ClassVar[str] = 'component = "sample"\nkey = "host.key"\n'

    key: Path
    limits: Limits = Limits()
    peer: tuple[Peer, ...] = ()
    labels: dict[str, int] = {}
    listen: SocketPath | None = None
    agent: KeyId | None = None
    digests: tuple[Sha256, ...] = ()
    pcrs: dict[PcrIndex, int] = {}

    def open(self) -> None:
        """A sample names nothing that could be loaded."""


WHOLE = b"""\
component = "sample"  # whose file this is
key = "keys/host.key"

[limits]
memory_bytes = 4096

[[peer]]
name = "first"
socket = "/run/first.sock"

[[peer]]
name = "second"
socket = "second.sock"
"""


def read(data: bytes) -> Sample:
    return parse(data, Sample, source="sample.toml", folder=Path("/etc/ringfence"))


def test_a_whole_file_becomes_one_frozen_value() -> None:
    value = read(WHOLE)
    assert value.limits.memory_bytes == 4096
    assert [peer.name for peer in value.peer] == ["first", "second"]
    with pytest.raises(AttributeError):
        value.key = Path("/other")  # type: ignore[misc]


def test_relative_paths_stand_beside_the_file_and_absolute_ones_stay(tmp_path: Path) -> None:
    file = tmp_path / "sample.toml"
    file.write_bytes(WHOLE)
    value = load(file, Sample)
    assert value.key == tmp_path / "keys/host.key"
    assert [peer.socket for peer in value.peer] == [Path("/run/first.sock"), tmp_path / "second.sock"]


def test_the_example_loads() -> None:
    assert read(Sample.example.encode()).limits == Limits()


def test_effective_values_show_defaults_and_resolved_paths() -> None:
    assert effective(read(Sample.example.encode())) == {
        "component": "sample",
        "key": "/etc/ringfence/host.key",
        "limits": {"memory_bytes": 1 << 20, "ratio": 0.5},
        "peer": (),
        "labels": {},
        "listen": None,
        "agent": None,
        "digests": (),
        "pcrs": {},
    }


@pytest.mark.parametrize(
    ("text", "code", "line", "field"),
    [
        ('component = "sample"\nkey = "k"\n\nkee = 1\n', "config.unknown_key", 4, "kee"),
        ('component = "sample"\nkey = "k"\n[limits]\n# memory\nmemory = 1\n', "config.unknown_key", 5, "limits.memory"),
        ('component = "sample"\nkey = "k"\nlimits = {ratio = 1.0, "b c" = 1}\n', "config.unknown_key", 3, "limits.b c"),
        ('component = "sample"\nkey = "k"\nlimits.x.y = 1\n', "config.unknown_key", 3, "limits.x"),
        (WHOLE.decode() + "port = 1\n", "config.unknown_key", 14, "peer[1].port"),
        ('component = "sample"\n\n[limits]\n', "config.missing_key", None, "key"),
        ('component = "sample"\nkey = "k"\n[[peer]]\nsocket = "s"\n', "config.missing_key", 3, "peer[0].name"),
        ('component = "sample"\nkey = 3\n', "config.bad_value", 2, "key"),
        ('component = "sample"\nkey = ""\n', "config.bad_value", 2, "key"),
        ('component = "sample"\nkey = "a\\u0000b"\n', "config.bad_value", 2, "key"),
        ('component = "sample"\nkey = "k"\n[limits]\nmemory_bytes = 0\n', "config.bad_value", 4, "limits.memory_bytes"),
        ('component = "sample"\nkey = "k"\n[limits]\nratio = "1"\n', "config.bad_value", 4, "limits.ratio"),
        ('component = "sample"\nkey = "k"\n[labels]\na = 1\nb = "x"\n', "config.bad_value", 3, "labels"),
        ('component = "sample"\nkey = "k"\nlimits = 1\n', "config.bad_value", 3, "limits"),
        ('key = "k"\n', "config.wrong_component", None, "component"),
        ('key = "k"\ncomponent = 7\n', "config.wrong_component", 2, "component"),
        ('key = "k"\ncomponent = "gateway"\n', "config.wrong_component", 2, "component"),
        ('component = "sample"\nkey = \n', "config.bad_toml", 2, ""),
        ('component = "sample"\nkey = "a"\nkey = "b"\n', "config.bad_toml", 3, ""),
        ('component = "sample"\nkey = 1' + "0" * 5000 + "\n", "config.bad_toml", None, ""),
        ('component = "sample"\nkey = ' + "[" * 3000 + "]" * 3000 + "\n", "config.bad_toml", None, ""),
        ("[" + ".".join("a" * 500) + "]\n", "config.bad_toml", None, ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(text: str, code: str, line: int | None, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text.encode())
    assert (caught.value.code.name, caught.value.line, caught.value.field) == (code, line, field)
    assert caught.value.code.kind is Kind.INVALID
    assert caught.value.message.startswith("sample.toml:" if line is None else f"sample.toml:{line}: ")


@pytest.mark.parametrize(
    ("line", "field", "says"),
    [
        ('agent = "rf1"', "agent", "agent: expected a key id: rf1 and 43 characters."),
        (f'agent = "rf1{"A" * 43}\\n"', "agent", "agent: expected a key id: rf1 and 43 characters."),
        (f'digests = ["{"A" * 64}"]', "digests[0]", "digests[0]: expected a SHA-256 in 64 lower-case hex digits."),
        ("pcrs.24 = 1", "pcrs", "a key of pcrs: expected the number of a PCR, 0 to 23."),
        ("pcrs.00 = 1", "pcrs", "a key of pcrs: expected the number of a PCR, 0 to 23."),
        ("listen = 1", "listen", "listen: expected `str`, got `int`."),
        ('listen = ""', "listen", "listen: expected a path: a string that is not empty."),
    ],
)
def test_what_is_expected_is_said_in_words(line: str, field: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f'component = "sample"\nkey = "k"\n{line}\n'.encode())
    assert (caught.value.code.name, caught.value.line, caught.value.field) == ("config.bad_value", 3, field)
    assert caught.value.message == f"sample.toml:3: {says}"


def test_a_socket_is_resolved_and_no_longer_than_the_kernel_takes() -> None:
    room = MAX_SOCKET_PATH - len("/etc/ringfence/")
    longest = read(f'component = "sample"\nkey = "k"\nlisten = "{"x" * room}"\n'.encode())
    assert str(longest.listen) == "/etc/ringfence/" + "x" * room
    with pytest.raises(ConfigError, match=r"sample\.toml:3: listen: expected a socket's path of at most 107 bytes"):
        read(f'component = "sample"\nkey = "k"\nlisten = "{"x" * room}y"\n'.encode())


def test_a_file_that_is_not_utf8_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"bad_toml.*sample\.toml:2: the file is not UTF-8") as caught:
        read(b'component = "sample"\nkey = "\xff"\n')
    assert caught.value.line == 2


@pytest.mark.parametrize("name", ["missing.toml", "folder", "fifo", "a\0b"])
def test_what_cannot_be_read_is_an_error_and_not_a_wait(tmp_path: Path, name: str) -> None:
    import os

    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match=r"config\.unreadable"):
        load(tmp_path / name, Sample)


def test_a_file_past_the_bound_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    file.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load(file, Sample)


@given(st.binary())
def test_arbitrary_bytes_raise_nothing_but_a_config_error(data: bytes) -> None:
    with pytest.raises(ConfigError):
        read(data)


PIECES = [
    *('component = "sample"', 'key = "k"', "key", "[limits]", "[[peer]]", "[labels]", "nan", "true", "2027-01-31"),
    *('"', "'", '"""', "'''", "\\", "{", "}", "[", "]", ",", ".", "=", "#", "\n", "\n", " ", "1", "1.5", "a", "é", "🜁"),
]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_text_that_is_nearly_toml_raises_nothing_but_a_config_error(text: str) -> None:
    try:
        read(text.encode())
    except ConfigError as error:
        line = error.line
    else:
        line = None
    assert line is None or 1 <= line <= text.count("\n") + 1


# Documents in every way of writing that TOML has, each beside nothing: tomllib says what they mean.
NAMES = st.sampled_from(["a", "b-1", "key", '"odd key"', "'its'", '"a.b"', '"q\\"]"', '"é\\u00e9"', '"#"'])
STRINGS = st.sampled_from(
    [
        '"x"',
        "'x # ]'",
        '"a\\"b"',
        '"""a\n"b"\n\\"""c"""',
        "'''a\n''b\n'''",
        '""""q""""',
        "''''q''''",
        '""',
        "''",
        '"""\n"""',
    ]
)
SCALARS = st.one_of(
    STRINGS, st.sampled_from(["1", "-2.5", "true", "inf", "2027-01-31", "2027-01-31 10:00:00Z", "0xff"])
)
BLANKS = st.sampled_from(["", " ", "\t"])
GAPS = st.sampled_from(["", " ", "\n", " # ] } , \" '\n", "\n\n  "])


@st.composite
def dotted(draw: st.DrawFn) -> str:
    return f"{draw(BLANKS)}.{draw(BLANKS)}".join(draw(st.lists(NAMES, min_size=1, max_size=3)))


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(values, max_size=3))
    inner = "".join(f"{draw(GAPS)}{item}{draw(GAPS)}," for item in items)
    return f"[{inner}{draw(GAPS)}]"


@st.composite
def inline_tables(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    pairs = [f"{draw(dotted())} = {draw(values)}" for _ in range(draw(st.integers(0, 3)))]
    return "{" + ", ".join(pairs) + "}"


VALUES = st.recursive(SCALARS, lambda inner: st.one_of(arrays(inner), inline_tables(inner)), max_leaves=5)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Mostly valid: duplicate keys occur, and tomllib refuses those."""
    statements = st.one_of(
        st.tuples(dotted(), VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
        dotted().map(lambda key: f"[ {key} ]"),
        dotted().map(lambda key: f"[[{key}]]"),
        st.just("# comment = [1"),
        st.just(""),
    )
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    return "".join(f"{draw(BLANKS)}{statement}{line_end}" for statement in draw(st.lists(statements, max_size=6)))


def every_path(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    for key, child in children:
        found |= every_path(child, (*path, key))
    return found


@given(documents())
def test_the_scanner_finds_exactly_the_keys_that_tomllib_reads(text: str) -> None:
    try:
        meant = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = key_lines(text)
    assert set(lines) == every_path(meant)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def test_lines_of_nested_and_dotted_keys() -> None:
    text = 'a.b = 1\nc = """\n\n"""\nlist = [\n  1,\n  { x = 2 },\n]\n[[t]]\ny = 1\n[t.u]\nz = 2\n[[t]]\ny = 3\n'
    assert key_lines(text) == {
        ("a",): 1, ("a", "b"): 1, ("c",): 2, ("list",): 5, ("list", 0): 6, ("list", 1): 7, ("list", 1, "x"): 7,
        ("t",): 9, ("t", 0): 9, ("t", 0, "y"): 10, ("t", 0, "u"): 11, ("t", 0, "u", "z"): 12,
        ("t", 1): 13, ("t", 1, "y"): 14,
    }  # fmt: skip
