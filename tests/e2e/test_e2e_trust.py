"""Who is believed: hosts by a fresh attestation result, gateways and clients by pinned keys, and by nothing else."""

from __future__ import annotations

import dataclasses
import http.server
import importlib
import os
import secrets
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence import audit
from ringfence.agent.api.jobs import JobLimits
from ringfence.attestation import result as attestation_result
from ringfence.client import Client, RefusedError
from ringfence.client.local import LocalInstallation
from ringfence.client.transport import Transport
from ringfence.crypto.handshake import Greeted, Received
from ringfence.plugin.api import MSGPACK, SESSIONS_PATH
from ringfence.plugin.config import TRUST_PATIENCE_S
from ringfence.trust import KeyPair, generate

Refusal = Callable[[Callable[[], object]], str]


@pytest.fixture
def stranger(tmp_path: Path) -> KeyPair:
    return generate(tmp_path, "stranger")


@pytest.fixture
def reconfigure(stop: Callable[..., None]) -> Callable[[LocalInstallation, str, str], None]:
    """Restarts an installation's gateway with a changed configuration."""

    def change(local: LocalInstallation, old: str, new: str) -> None:
        path = local.state / "gateway.toml"
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))
        stop(local, "gateway")
        local.start("gateway")

    return change


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def impostor(folder: Path) -> Iterator[Callable[[Callable[[bytes], bytes]], str]]:
    """A server that answers each hello with `answer(hello)`; gives its address."""
    servers: list[_Server] = []

    def serve(answer: Callable[[bytes], bytes]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = answer(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-type", MSGPACK)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        path = folder / f"impostor-{secrets.token_hex(4)}"
        servers.append(_Server(str(path), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"unix:{path}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def _client(local: LocalInstallation, address: str, *, gateway: bytes) -> Client:
    return Client(address, local.keys["client"], gateway=gateway, verifiers=[local.keys["verifier"].public])


def _reply(signer: KeyPair, hello: bytes, parameters: bytes) -> bytes:
    """What a gateway with the key pair `signer` answers that skips every check of its own."""
    expires = int(time.time()) + 60
    responder = Greeted(Received.parse(hello)).answer(
        signer, name="0" * 32, expires_at=expires, random=secrets.token_bytes
    )
    return responder.finish(signer, parameters)[0]


def test_a_gateway_without_its_agent_refuses_at_once(
    local: LocalInstallation, stop: Callable[..., None], refusal: Refusal, until: Callable[..., None], records: Any
) -> None:
    stop(local, "gateway")
    stop(local, "agent")
    local.start("gateway")
    started = time.monotonic()
    for _ in range(12):  # an absent host is not the caller's fault, and counts nothing against it
        assert refusal(lambda: local.client().open_session()) == "device.not_attested"
    assert time.monotonic() - started < 5
    assert records(local, "gateway", audit.Attestation)[-1].code == "agent.unavailable"

    local.start("agent")

    def opens() -> bool:
        try:
            return bool(local.client().open_session().name)
        except RefusedError as error:
            return error.code.name != "device.not_attested"

    until(opens, "the gateway has found its agent", 5.0)
    assert local.client().open_session().attestation.status == "affirming"


def test_a_host_without_a_tpm_under_the_shipped_policy(
    monkeypatch: pytest.MonkeyPatch, folder: Path, reconfigure: Callable[..., None], refusal: Refusal
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with LocalInstallation(folder / "unattested") as local:
        session = local.client().open_session()
        assert session.attestation.status == "none"
        strict = Client(
            f"unix:{local.socket('gateway')}",
            local.keys["client"],
            gateway=local.keys["gateway"].public,
            verifiers=[local.keys["verifier"].public],
        )
        assert refusal(strict.open_session) == "client.host_not_attested"

        reconfigure(local, f'policies = "{local.host.policies}"', 'policies = "default"')
        with pytest.raises(RefusedError) as caught:
            local.client().open_session()
    assert caught.value.code.name == "policy.denied"
    assert "forbid-unattested-host" in caught.value.message


def test_another_boot_ends_what_was_admitted_before(
    folder: Path,
    reconfigure: Callable[..., None],
    nothing: bytes,
    limits: JobLimits,
    until: Callable[..., None],
    records: Any,
) -> None:
    os.environ["TSS2_LOG"] = "all+NONE"
    tss = importlib.import_module("tpm2_pytss")
    with LocalInstallation(folder / "rebooted") as local:
        reconfigure(local, "[host]\n", "[limits]\nattestation_lifetime_s = 10\n\n[host]\n")
        session = local.client().open_session()
        session.submit(nothing, b"", limits=limits)
        with tss.ESAPI(local.host.tcti) as tpm:
            tpm.pcr_event(tss.ESYS_TR.PCR4, b"another boot loader")
        until(lambda: records(local, "gateway", audit.Attestation)[-1].event == "refused", "it is attested anew", 8.0)
        assert records(local, "gateway", audit.Attestation)[-1].code == "attestation.pcr_unexpected"
        for attempt in (lambda: session.submit(nothing, b"", limits=limits), local.client().open_session):
            with pytest.raises(RefusedError) as caught:
                attempt()
            assert caught.value.code.name == "device.not_attested"
            assert "PCR 4" in caught.value.message


def test_a_client_talks_to_the_gateway_that_it_pins_only(
    local: LocalInstallation, stranger: KeyPair, impostor: Any, refusal: Refusal
) -> None:
    pinned, real = local.keys["gateway"].public, f"unix:{local.socket('gateway')}"
    # The real gateway at the address, another one pinned: a hello names whom it is for.
    assert refusal(_client(local, real, gateway=stranger.public).open_session) == "handshake.misdirected"
    # Another gateway at the address, with its own key.
    session = local.client().open_session()
    copied = msgspec.msgpack.encode(session.parameters)
    posing = impostor(lambda hello: _reply(stranger, hello, copied))
    assert refusal(_client(local, posing, gateway=pinned).open_session) == "handshake.refused"


def test_a_relayed_handshake(local: LocalInstallation, stranger: KeyPair, impostor: Any, refusal: Refusal) -> None:
    pinned, real = local.keys["gateway"].public, Transport(f"unix:{local.socket('gateway')}")
    recorded: list[bytes] = []

    def relay(hello: bytes) -> bytes:
        recorded.append(real.post(SESSIONS_PATH, hello, {}, timeout_s=10).body)
        return recorded[0]

    address = impostor(relay)
    # Passed on untouched it is end to end the real gateway's; what was recorded answers no other hello.
    assert _client(local, address, gateway=pinned).open_session().attestation.subject == local.keys["agent"].key_id
    assert refusal(_client(local, address, gateway=pinned).open_session) == "handshake.refused"

    # Changed on the way, in every part of it.
    def changed(at: int) -> Callable[[bytes], bytes]:
        def relay_changed(hello: bytes) -> bytes:
            answer = bytearray(real.post(SESSIONS_PATH, hello, {}, timeout_s=10).body)
            answer[at] ^= 1
            return bytes(answer)

        return relay_changed

    for at in (40, 900, 2000, -1):
        code = refusal(_client(local, impostor(changed(at)), gateway=pinned).open_session)
        assert code in ("handshake.refused", "handshake.malformed")

    # A gateway that the client does pin, and that passes the hello on to the real one, gets no session for it.
    answers: list[bytes] = []

    def pass_on(hello: bytes) -> bytes:
        answers.append(real.post(SESSIONS_PATH, hello, {}, timeout_s=10).body)
        return answers[-1]

    code = refusal(_client(local, impostor(pass_on), gateway=stranger.public).open_session)
    assert code == "handshake.malformed"
    assert msgspec.json.decode(answers[0])["code"] == "handshake.misdirected"


def test_a_copied_attestation_result(
    local: LocalInstallation, stranger: KeyPair, impostor: Any, refusal: Refusal
) -> None:
    # The thief has an attested host's result and a proof made for another session; the client even pins the thief.
    session = local.client().open_session()

    def posing(**changes: Any) -> Client:
        copied = msgspec.msgpack.encode(msgspec.structs.replace(session.parameters, **changes))
        return _client(local, impostor(lambda hello: _reply(stranger, hello, copied)), gateway=stranger.public)

    assert refusal(posing().open_session) == "client.host_proof_invalid"
    assert refusal(posing(host_proof=b"").open_session) == "client.host_proof_invalid"
    assert refusal(posing(host_proof=secrets.token_bytes(3373)).open_session) == "client.host_proof_invalid"
    # A result that the thief issued itself: its verifier is not pinned.
    own = attestation_result.issue(dataclasses.replace(session.attestation, issuer=stranger.key_id), stranger)
    assert refusal(posing(attestation=own).open_session) == "attestation.result_verifier_unknown"
    forged = session.parameters.attestation.rpartition(".")[0] + "." + own.rpartition(".")[2]
    assert refusal(posing(attestation=forged).open_session) == "attestation.result_signature"


def test_a_key_that_is_no_longer_pinned(
    local: LocalInstallation,
    command: Callable[..., list[str]],
    nothing: bytes,
    limits: JobLimits,
    refusal: Refusal,
) -> None:
    def trust(*words: object) -> None:
        subprocess.run(command("trust", *words), check=True, capture_output=True, timeout=30)
        time.sleep(2 * TRUST_PATIENCE_S)  # what a gateway has read of the list holds for so long

    def served() -> None:
        assert local.client().open_session().submit(nothing, b"", limits=limits).receipt.code == ""

    key = local.public_key("client")
    groups = ["--group", "clients", "--group", "job-submitters"]
    before = local.client().open_session()
    trust("remove", "client", "client", "--file", local.state / "gateway-trust.toml")
    assert refusal(local.client().open_session) == "identity.unknown_key"
    trust("add", "client", "client", key, *groups, "--file", local.state / "gateway-trust.toml")
    # A session ends with its pin, and does not come back with it.
    assert refusal(lambda: before.submit(nothing, b"", limits=limits)) == "session.unknown"
    served()

    session = local.client().open_session()
    trust("remove", "client", "client", "--file", local.state / "agent-trust.toml")
    assert refusal(lambda: session.submit(nothing, b"", limits=limits)) == "job.principal_unknown"
    trust("add", "client", "client", key, "--file", local.state / "agent-trust.toml")
    served()
