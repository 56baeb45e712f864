"""How long each identity factor takes, and four of them side by side: µs of CPU and of the clock, on one core.

.venv/bin/python -m tests.plugin.identity.identity_bench [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from ringfence.plugin.identity.assembly import identify, verify_side_by_side
from ringfence.plugin.identity.bundles import BundleFiles
from ringfence.plugin.identity.device import make_evidence
from ringfence.plugin.identity.factors import build
from ringfence.plugin.identity.oidc import encode_evidence
from ringfence.plugin.identity.port import Binding
from ringfence.plugin.identity.settings import (
    DeviceSettings,
    IdentitySettings,
    KeySetSettings,
    OidcSettings,
    SubjectSettings,
    SvidSettings,
    WebAuthnSettings,
)
from ringfence.plugin.identity.svid import verify_chain
from ringfence.trust import Pin, Role, TrustList
from tests.plugin.identity.authenticator import ORIGIN, RP_ID, Authenticator
from tests.plugin.identity.certificates import NOW, WORKLOAD, authority, certificate, p256
from tests.plugin.identity.test_identity_assembly import DEVICE, VERIFIER, Familiar, result
from tests.plugin.identity.test_identity_webauthn import enrol
from tests.plugin.identity.tokens import AUDIENCE, ISSUER, Issuer, encoded, proof, thumbprint

TRANSCRIPT = hashlib.sha256(b"handshake").digest()


async def measured(what: str, rounds: int, work: Callable[[], Awaitable[object]]) -> None:
    spent, taken = [], []
    for _ in range(rounds):
        begun, began = time.process_time_ns(), time.perf_counter_ns()
        await work()
        taken.append(time.perf_counter_ns() - began)
        spent.append(time.process_time_ns() - begun)
    cpu, p50, p99 = (
        sorted(times)[rounds * part // 100] / 1000 for times, part in ((spent, 50), (taken, 50), (taken, 99))
    )
    print(f"{what:42} CPU p50 {cpu:8.1f}   p50 {p50:8.1f}   p99 {p99:8.1f}")


async def main(rounds: int, folder: Path) -> None:
    root, issuer, holder, security_key = authority(), Issuer(), p256(), Authenticator()
    leaf = certificate(root, uris=(WORKLOAD,))
    (folder / "bundle.pem").write_bytes(root.pem)
    (folder / "keys.json").write_bytes(issuer.jwks())
    url = "https://gateway.example/v1/sessions"
    settings = IdentitySettings(
        subjects=(
            SubjectSettings("alice", "oidc", f"{ISSUER}#alice"),
            SubjectSettings("alice", "svid", WORKLOAD),
            SubjectSettings("alice", "device", DEVICE.key_id),
        ),
        svid=SvidSettings({"example.org": folder / "bundle.pem"}),
        oidc=OidcSettings(ISSUER, AUDIENCE, KeySetSettings(file=folder / "keys.json"), proof_url=url),
        webauthn=WebAuthnSettings(RP_ID, (ORIGIN,), folder / "credentials"),
        device=DeviceSettings((VERIFIER.key_id,)),
    )
    trust = TrustList((Pin("verifier", Role.VERIFIER, VERIFIER.public, NOW),))
    factors = build(settings, trust=lambda: trust, behaviour_score=Familiar())
    credentials = factors.credentials
    assert credentials is not None
    await credentials.add(enrol(security_key))
    binding = Binding(TRANSCRIPT, leaf.thumbprint, "alice")
    bound = issuer.token(cnf={"x5t#S256": encoded(bytes.fromhex(leaf.thumbprint))})
    held = issuer.token(cnf={"jkt": thumbprint(holder)})
    evidence = {
        "svid": leaf.pem,
        "oidc": encode_evidence(bound),
        "webauthn": security_key.assertion(TRANSCRIPT),
        "device": make_evidence(result(), DEVICE, TRANSCRIPT),
    }

    def one(name: str, piece: bytes) -> Callable[[], Awaitable[object]]:
        return lambda: factors.by_name[name].verify(piece, binding, now=NOW)

    async def chain() -> None:
        verify_chain(leaf.pem, leaf.thumbprint, bundles, now=NOW, max_lifetime_s=86_400)

    async def together() -> None:
        outcome = await verify_side_by_side(factors.by_name, evidence, binding, now=NOW, deadline_s=2)
        assert identify(outcome, factors.subjects, binding).principal == "alice"
        assert len(outcome.proven) == 4

    async def in_thread() -> None:
        await asyncio.to_thread(bool)

    bundles = BundleFiles({"example.org": folder / "bundle.pem"})(NOW)
    await measured("svid, a chain of one certificate", rounds, chain)
    await measured("svid, remembered", rounds, one("svid", leaf.pem))
    await measured("oidc, ES256, bound to the certificate", rounds, one("oidc", evidence["oidc"]))
    proven = encode_evidence(held, proof(holder, held, TRANSCRIPT))
    await measured("oidc, ES256, with a DPoP proof", rounds, one("oidc", proven))
    await measured("webauthn, P-256, without a counter", rounds, one("webauthn", evidence["webauthn"]))
    await measured("device, attestation result and signature", rounds, one("device", evidence["device"]))
    await measured("four side by side, and who it is", rounds, together)
    await measured("an empty call in a thread, for comparison", rounds, in_thread)
    counted = iter(range(1, 10**9))

    async def counting() -> None:
        await credentials.advance(security_key.credential, next(counted))

    await measured("webauthn, a later counter made durable", min(rounds, 200), counting)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(parser.parse_args().rounds, Path(temporary)))
