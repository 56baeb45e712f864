"""The decoders that read untrusted bytes, each as a function that may raise nothing but `RingfenceError`.

`make fuzz` runs each for long under atheris, the gate all of them together for a minute. A new decoder gets its line in
`TARGETS`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from ringfence import httpsig
from ringfence.agent import ring
from ringfence.agent.api import failures, grants, jobs
from ringfence.agent.sandbox import validation, wasm
from ringfence.agent.sandbox.levels import Level
from ringfence.attestation import evidence, result, tpm_structures
from ringfence.audit import checkpoint, notes, proofs, records, segments
from ringfence.config import loader
from ringfence.crypto import envelope, forms, kem, mac
from ringfence.crypto.bike import parameters, scheme
from ringfence.crypto.handshake import Received
from ringfence.errors import RingfenceError
from ringfence.keystore import index
from ringfence.plugin.config import GatewayConfig
from ringfence.policies import cases, tokens
from ringfence.trust import keys, store
from tests.fuzz.target import Target

_KEY = bytes(32)
_RECIPIENT = envelope.RecipientKey(*kem("X-Wing").generate())
_OPENING = envelope.PostQuantumKeys((_RECIPIENT,))
_SEALED = envelope.seal_envelope(envelope.PostQuantum(_RECIPIENT.public), b"plaintext")


_COMMANDS = (
    ring.encode(ring.Write(1, b"data"))
    + ring.encode(ring.Launch("square_i64", 1, 2, (3, 4)))
    + ring.encode(ring.Gate(1, 2, 0.5))
    + ring.encode(ring.Measure(0, 0))
)
_ANSWERS = tuple(b"".join(ring.encode_answer(1, result)) for result in (b"data", ring.Refusal("gpu.fault", "Why.")))


def _answer(data: bytes) -> object:
    # The answer to a batch of one slot, and what lies in the reply file behind it.
    outlet = ring.Outlet(memoryview(bytearray(ring.REQUEST_BYTES)))
    outlet.put(bytes(ring.SLOT_BYTES))
    return outlet.settle(data[: ring.ANSWER_BYTES], memoryview(data)[ring.ANSWER_BYTES :])


def _crossings(data: bytes) -> None:
    # One crossing after the other, in a ring that holds the same bytes again and again.
    intake = ring.Intake(memoryview((data * (ring.REQUEST_BYTES // max(1, len(data)) + 1))[: ring.REQUEST_BYTES]))
    for start in range(0, len(data), ring.CROSSING_BYTES):
        batch = intake.take(data[start : start + ring.CROSSING_BYTES])
        with contextlib.suppress(RingfenceError):
            ring.decode_batch(batch[:4096])


def _grant(data: bytes) -> object:
    # Under the right tag, so that the bytes behind it are reached.
    return grants.open_grant(_KEY, data, mac(_KEY, data), audience="a", gateway="g", now=0)


def _bike(data: bytes) -> None:
    # One decoder after the other, each of bytes of its own length.
    level = parameters.BIKE_L1
    for decode in (scheme.public_polynomial, scheme.ciphertext_polynomial, scheme.PrivateKey.decode):
        for size in (level.public_size, level.ciphertext_size, level.private_size):
            with contextlib.suppress(RingfenceError):
                decode(level, (data * (size // max(1, len(data)) + 1))[:size])


def _headers(data: bytes) -> object:
    lines = data.decode("latin-1").split("\n")
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return httpsig.parse(httpsig.fields((name, value) for name, value in pairs))


def _wasm(data: bytes) -> None:
    for body in wasm.decode_module(data).bodies:
        wasm.read_flow(data, body)
        for _ in wasm.instructions(data, body.start, body.end):
            pass


def _checked(data: bytes) -> object:
    # Behind a first byte that chooses the level, anything must give a report.
    level = list(Level)[data[0] % 4] if data else Level.HIGH
    return validation.encode_report(validation.validate(data[1:], level, memory_bytes=1 << 20, qubits=2))


# A command with a circuit, a loop, a table and two segments.
_MODULE = bytes.fromhex(
    "0061736d01000000010b0260000060037f7f7c017f021a010972696e6766656e63650c7175616e74756d5f67617465000103020100040401"
    "7000010504010101010606017f0041050b071302066d656d6f72790200065f737461727400010907010041000b01010a3301310003404103"
    "410044000000000000000010001a410011000041000d000bfd0c010000000000000002000000000000001a0b0b08010041030b026162"
)

_HEADERS = (
    b"content-digest:sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\n"
    b'signature-input:ringfence=("@method" "@authority" "@path" "@query" "content-digest");created=1;expires=2;'
    b'nonce="0123456789abcdef";keyid="0123";alg="hmac-sha256"\n'
    b"signature:ringfence=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
)

_NOTE = (
    "ringfence.audit/agent/rf1\n1\n" + "A" * 43 + "=\nchain " + "0" * 64 + "\ntime_ns 1\ncounter 0\n\n"
    "— ringfence.audit/agent/rf1 AAAAAAA=\n"
).encode()
_HEADER = b'{"v":2,"origin":"ringfence.audit/agent/rf1","first":1,"prev":"' + b"0" * 64 + b'","peaks":[]}'
_RECORD = (
    b'{"v":2,"seq":1,"base":0,"prev":"' + b"0" * 64 + b'","time_ns":1,"kind":"operator/1","data":'
    b'{"event":"started","component":"a","version":"","digest":"","dropped_bytes":0}}'
)

TARGETS: Mapping[str, Target] = {
    "agent.api.failures": Target(lambda data: failures.decode([(failures.TRAILER, data)])),
    "agent.api.grants": Target(_grant),
    "agent.api.jobs": Target(jobs.parse_submission),
    "agent.ring.answer": Target(_answer, _ANSWERS),
    "agent.ring.batch": Target(ring.decode_batch, (_COMMANDS,)),
    "agent.ring.crossings": Target(_crossings, (b"\1" + bytes(7) + b"\3" + bytes(7),)),
    "agent.sandbox.validation": Target(_checked, tuple(bytes([level]) + _MODULE for level in range(4))),
    "agent.sandbox.wasm": Target(_wasm, (_MODULE,)),
    "attestation.evidence": Target(evidence.decode),
    "attestation.result": Target(
        lambda data: result.check(data.decode("latin-1"), verifiers={}, now=0), (b"e30.e30.",)
    ),
    "attestation.tpm_public": Target(tpm_structures.parse_public),
    "attestation.tpm_quote": Target(tpm_structures.parse_quote, (b"\xffTCG\x80\x18",)),
    "attestation.tpm_signature": Target(tpm_structures.parse_signature),
    "audit.checkpoint": Target(checkpoint.decode_checkpoint, (_NOTE,)),
    "audit.note": Target(notes.decode_note, (_NOTE,)),
    "audit.proof": Target(proofs.decode_proof),
    "audit.record": Target(records.decode_line, (_RECORD,)),
    "audit.segment_covered": Target(segments.decode_covered),
    "audit.segment_header": Target(segments.decode_header, (_HEADER,)),
    "config": Target(
        lambda data: loader.parse(data, GatewayConfig, source="fuzz", folder=Path()), (GatewayConfig.example.encode(),)
    ),
    "crypto.bike": Target(_bike),
    "crypto.envelope": Target(lambda data: envelope.open_envelope(_OPENING, data), (_SEALED,)),
    "crypto.forms_private": Target(forms.import_private, (b"-----BEGIN PRIVATE KEY-----\n", b'{"kty":"OKP"}')),
    "crypto.forms_public": Target(forms.import_public, (b"-----BEGIN PUBLIC KEY-----\n", b'{"kty":"AKP"}')),
    "crypto.handshake": Target(Received.parse),
    "keystore.index": Target(lambda data: index.parse(data, "fuzz")),
    "httpsig": Target(_headers, (_HEADERS,)),
    "policies.cases": Target(lambda data: cases.parse_cases(data.decode("latin-1"), "fuzz")),
    "policies.tokens": Target(
        lambda data: tokens.check_schema_text(data.decode("latin-1"), "fuzz"), (b"entity A = { a: Long };",)
    ),
    "trust.keys": Target(lambda data: keys.unarmour(keys.PUBLIC, data)),
    "trust.store": Target(lambda data: store.parse(data, "fuzz"), (b"version = 1\n",)),
}
