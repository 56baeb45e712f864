"""A local installation in one folder: keys, pins, configurations, and an agent and a gateway as separate processes.

The demo and the benchmarks run against it, through the public client library, as any caller would. It writes its pins
explicitly, as an operator would with `ringfence trust add`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from ringfence import trust
from ringfence.client.client import ATTESTED, Client
from ringfence.client.errors import START_FAILED, ClientError
from ringfence.trust import KeyPair, Pin, Role, TrustList
from ringfence.trust.store import quoted

START_S: Final = 30.0
STOP_S: Final = 10.0
CLIENT_GROUPS: Final = ("clients", "job-submitters", "quantum-users", "demo")
_SOCKET_LIMIT: Final = 100
_RINGFENCE: Final = (sys.executable, "-m", "ringfence.cli")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Host:
    """How the host is attested: by which TPM, or why not."""

    tcti: str
    sentence: str
    policies: str


class LocalInstallation:
    """Everything in `state`; use it as a context manager. Nothing of it runs or listens afterwards."""

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._sockets = self.state / "run"
        self._borrowed: Path | None = None
        self.keys: dict[str, KeyPair] = {}
        self.host = Host("none", "", "default")

    def __enter__(self) -> LocalInstallation:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def client(self, name: str = "client") -> Client:
        """A client with the key pair `name`, which pins this installation's gateway and verifier."""
        return Client(
            f"unix:{self.socket('gateway')}",
            self.keys[name],
            gateway=self.keys["gateway"].public,
            verifiers=[self.keys["verifier"].public],
            accept=ATTESTED if self.host.tcti != "none" else ATTESTED | {"none"},
        )

    @property
    def audit_folder(self) -> Path:
        """The folder of the logs, one a process."""
        return self.state / "audit"

    def public_key(self, name: str) -> Path:
        """The public key file of `name`."""
        return self.state / "keys" / f"{name}.pub"

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """The running process `agent`, `gateway` or `tpm`."""
        return next(process for held, process in self._processes if held == name)

    def socket(self, name: str) -> Path:
        """The socket of `agent` or `gateway`."""
        return self._sockets / f"{name}.sock"

    def start(self, name: str) -> None:
        """Starts `agent` or `gateway`, again where it has ended, and waits until it answers."""
        self._processes = [held for held in self._processes if held[0] != name]
        self._run(name, [*_RINGFENCE, name, "--config", str(self.state / f"{name}.toml")])
        self._await_ready(name, self.socket(name))

    def stop(self) -> None:
        """Stops every process, the last started first, and removes the sockets."""
        _whole(self._stop)

    def _stop(self) -> None:
        while self._processes:
            _, process = self._processes.pop()
            _end(process)
        if self._borrowed is not None:
            shutil.rmtree(self._borrowed, ignore_errors=True)
            self._borrowed = None

    def _start(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_keys()
        self._place_sockets()
        self.host = self._find_tpm()
        self._write_pins()
        self._write_configurations()
        for name in ("agent", "gateway"):
            self.start(name)

    def _make_keys(self) -> None:
        folder = self.state / "keys"
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in ("client", "gateway", "agent", "verifier"):
            known = folder / f"{name}.key"
            self.keys[name] = trust.load_private(known) if known.exists() else trust.generate(folder, name)

    def _place_sockets(self) -> None:
        # A socket's path may have 107 bytes only; a deeper folder keeps everything else.
        if len(os.fsencode(self._sockets)) + len("/gateway.sock") > _SOCKET_LIMIT:
            self._borrowed = self._sockets = Path(tempfile.mkdtemp(prefix="ringfence-", dir="/tmp"))
        self._sockets.mkdir(mode=0o700, exist_ok=True)

    def _write_pins(self) -> None:
        now = int(time.time())
        client = Pin("client", Role.CLIENT, self.keys["client"].public, now, CLIENT_GROUPS)
        agent = Pin("agent", Role.AGENT, self.keys["agent"].public, now)
        gateway = Pin("gateway", Role.GATEWAY, self.keys["gateway"].public, now)
        trust.save(self.state / "gateway-trust.toml", TrustList((client, agent)))
        trust.save(self.state / "agent-trust.toml", TrustList((client, gateway)))

    def _write_configurations(self) -> None:
        agent = f"""\
component = "agent"
socket = {quoted(str(self.socket("agent")))}
state = {quoted(str(self.state))}
key = "keys/agent.key"
trust = "agent-trust.toml"

[attestation]
tcti = {quoted(self.host.tcti)}

[sandbox]
# A laptop or a container may lack them. Where `ringfence doctor` finds them, an installation should not accept that.
accept_missing = ["landlock", "namespaces"]
"""
        (self.state / "agent.toml").write_text(agent)
        gateway = f"""\
component = "gateway"
listen = {quoted(f"unix:{self.socket('gateway')}")}
state = {quoted(str(self.state))}
key = "keys/gateway.key"
verifier_key = "keys/verifier.key"
trust = "gateway-trust.toml"
policies = {quoted(self.host.policies)}

{self._show_host()}"""
        (self.state / "gateway.toml").write_text(gateway)

    def _show_host(self) -> str:
        """The gateway's table about the host, from the same command that an operator would ask."""
        command = [*_RINGFENCE, "agent", "--config", str(self.state / "agent.toml"), "--show-host"]
        shown = _whole(
            lambda: subprocess.run(  # noqa: S603 - our own program, no shell
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S, check=False
            )
        )
        if shown.returncode != 0:
            raise _not_started("agent", shown.stderr)
        return shown.stdout

    def _find_tpm(self) -> Host:
        demo_policy = str(files("ringfence.client") / "demo_data" / "policy")
        missing = [
            name
            for name, there in (
                ("swtpm", shutil.which("swtpm") is not None),
                ("tpm2-pytss", importlib.util.find_spec("tpm2_pytss") is not None),
            )
            if not there
        ]
        if missing:
            sentence = (
                f"The host is not attested, because {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not installed; the demo's own policy admits it, no shipped "
                "policy would."
            )
            return Host("none", sentence, demo_policy)
        tcti = self._start_tpm()
        sentence = "The host is attested by a software TPM (swtpm), and the shipped default policy admits it."
        return Host(tcti, sentence, "default")

    def _start_tpm(self) -> str:
        folder = self.state / "tpm"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = self._sockets / "tpm"
        arguments = ["socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"]
        arguments += ["--server", f"type=unixio,path={path}", "--ctrl", f"type=unixio,path={path}.ctrl"]
        self._run("tpm", [str(shutil.which("swtpm")), *arguments])
        for listening in (path, path.with_name("tpm.ctrl")):
            self._await_ready("tpm", listening)
        return f"swtpm:path={path}"

    def _run(self, name: str, command: list[str]) -> None:
        _whole(lambda: self._spawn(name, command))

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.state / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append((name, process))

    def _await_ready(self, name: str, path: Path) -> None:
        process, deadline = self.process(name), time.monotonic() + START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            if _answers(path):
                return
            time.sleep(0.02)
        raise _not_started(name, (self.state / f"{name}.log").read_text(errors="replace"))


def _not_started(name: str, said: str) -> ClientError:
    last = " ".join(said.strip().splitlines()[-3:])
    return ClientError(
        START_FAILED,
        f"The {name} did not start: {last or 'it said nothing'}",
        field=name,
        hint="Run `ringfence doctor`, which finds what this host lacks.",
    )


def _whole(work: Callable[[], Result]) -> Result:
    """Runs `work` in a thread: signals are handled in the main one, so that none parts a process from its keeper."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
