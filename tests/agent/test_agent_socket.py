"""The agent's socket: one owner at a time, a dead owner's socket is cleared, and nothing else is ever removed."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.agent.api.errors import ChannelError
from ringfence.agent.socket import owned_socket

OWNER = """
import socket, sys, time
from pathlib import Path
from ringfence.agent.socket import owned_socket

with owned_socket(Path(sys.argv[1])):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    print("owned", flush=True)
    time.sleep(60)
"""


def refuse(path: Path) -> str:
    with pytest.raises(ChannelError) as caught, owned_socket(path):
        pass
    return caught.value.code.name


def test_there_is_one_owner_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "agent.sock"
    with owned_socket(path), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert refuse(path) == "agent.already_running"
        assert stat.S_ISSOCK(path.lstat().st_mode)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()
    with owned_socket(path):
        pass


def test_the_socket_of_a_killed_agent_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner.stdout as output:
        try:
            assert output.readline() == b"owned\n"
            assert refuse(path) == "agent.already_running"
        finally:
            owner.send_signal(signal.SIGKILL)
            owner.wait(10)
    assert path.exists()
    with owned_socket(path):
        assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "agent.sock", tmp_path / "target"
    target.write_text("kept")
    if kind == "file":
        path.write_text("kept")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    assert refuse(path) == "agent.unavailable"
    assert os.path.lexists(path)
    assert target.read_text() == "kept"


def test_an_error_inside_leaves_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    def fail_inside() -> None:
        with owned_socket(path), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert not path.exists()
