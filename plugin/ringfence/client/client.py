"""Sessions and jobs as a caller sees them: typed, synchronous, each call with a deadline.

Nothing is believed unchecked: the gateway by its pinned key, the host by an attestation result of a pinned verifier
and a proof over this very session, a receipt by the key which that result names.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from ringfence import httpsig
from ringfence.agent.api.jobs import (
    HOST_PROOF_CONTEXT,
    JobStatement,
    Receipt,
    check_receipt,
    host_proof_message,
    parse_submission,
    sign_job,
)
from ringfence.agent.api.jobs import JobLimits as JobLimits  # these three are part of this library's interface
from ringfence.agent.api.jobs import Level as Level
from ringfence.agent.api.jobs import ResultType as ResultType
from ringfence.attestation import result as attestation_result
from ringfence.attestation.result import AttestationResult
from ringfence.client.errors import (
    ANSWER_MALFORMED,
    HOST_PROOF_INVALID,
    HOST_UNATTESTED,
    RECEIPT_MISMATCH,
    ClientError,
    RefusedError,
)
from ringfence.client.transport import Answer, Exchange, Transport
from ringfence.crypto import COMPOSITE, CryptoError, Signer, digest, key_id
from ringfence.crypto.combiner import Bound
from ringfence.crypto.handshake import NO_SHARES, Established, Initiator, Shares
from ringfence.errors import Code, Kind
from ringfence.plugin.api import (
    FACTORS_PATH,
    JOBS_PATH,
    MSGPACK,
    PROBLEM,
    REQUEST_KEY,
    SESSION_PURPOSE,
    SESSIONS_PATH,
    JobAnswer,
    Problem,
    SessionParameters,
    StageView,
    step_up_challenge,
)

MIB: Final = 1024 * 1024
DEFAULT_LIMITS: Final = JobLimits(
    memory_bytes=256 * MIB, gpu_memory_bytes=256 * MIB, deadline_ms=10_000, output_bytes=4 * MIB, qubits=0
)
SIGNATURE_LIFETIME_S: Final = 60
ATTESTED: Final = frozenset({"affirming", "warning"})

Prove = Callable[[bytes], Mapping[str, bytes]]
"""Evidence by factor, bound to a challenge of 32 bytes."""

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class JobResult:
    """A finished job: its output, the receipt (checked), and the stages of the gateway's decision."""

    output: bytes
    receipt: Receipt
    receipt_bytes: bytes
    receipt_signature: bytes
    decision_id: str
    trace: tuple[StageView, ...]


class Client:
    """A caller with its key pair, one gateway whose public key is pinned, and the pinned verifiers.

    `accept` names the host's trust statuses that this caller accepts; `none` (not attested) must be asked for.
    `shares` are offered to the gateway as additions to the session's keys.
    `exchange` replaces the connection to `address`.
    """

    def __init__(
        self,
        address: str,
        signer: Signer,
        *,
        gateway: bytes,
        verifiers: Iterable[bytes],
        accept: frozenset[str] = ATTESTED,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        shares: Shares = NO_SHARES,
        exchange: Exchange | None = None,
    ) -> None:
        self.signer = signer
        self.timeout_s = timeout_s
        self._transport = Transport(address) if exchange is None else exchange
        self._gateway = gateway
        self._verifiers = {key_id(public): public for public in verifiers}
        self._accept = accept
        self._clock = clock
        self._shares = shares

    def now(self) -> int:
        """Seconds since the Unix epoch."""
        return int(self._clock())

    def open_session(self, *, timeout_s: float | None = None) -> Session:
        """An open session. Raises `RefusedError` where the gateway denies, `ClientError` where a check fails."""
        initiator = Initiator.start(
            self.signer,
            self._gateway,
            SESSION_PURPOSE,
            now=self.now(),
            random=secrets.token_bytes,
            shares=self._shares,
        )
        answer = self.post(SESSIONS_PATH, initiator.message, {}, timeout_s=timeout_s)
        established = initiator.finish(answer.body, self._check_host)
        parameters = _decode(established.parameters, SessionParameters)
        return Session(self, established, parameters, self._result(parameters))

    def post(self, path: str, body: bytes, headers: dict[str, str], *, timeout_s: float | None = None) -> Answer:
        """One POST to the gateway; a refusal raises `RefusedError`."""
        timeout = self.timeout_s if timeout_s is None else timeout_s
        answer = self._transport.post(path, body, {"content-type": MSGPACK, **headers}, timeout_s=timeout)
        if answer.status == 200 and answer.media == MSGPACK:
            return answer
        raise _refusal(answer)

    @property
    def authority(self) -> str:
        """What requests name as their authority."""
        return self._transport.authority

    def _result(self, parameters: SessionParameters) -> AttestationResult:
        return attestation_result.check(parameters.attestation, verifiers=self._verifiers, now=self.now())

    def _check_host(self, nonce: bytes, encoded: bytes) -> Bound:
        parameters = _decode(encoded, SessionParameters)
        result = self._result(parameters)
        message = host_proof_message(nonce, key_id(self._gateway))
        try:
            COMPOSITE.verify(result.agent_key, message, parameters.host_proof, HOST_PROOF_CONTEXT)
        except CryptoError:
            raise ClientError(
                HOST_PROOF_INVALID,
                "The host did not sign this session: the attestation result was copied, or the handshake relayed.",
                hint="Do not use this gateway until its operator has explained it.",
            ) from None
        if result.status.value not in self._accept:
            raise ClientError(
                HOST_UNATTESTED,
                f"The host's attestation status is {result.status.value!r}, which this client does not accept.",
                field="accept",
                hint="Have the host attested, or accept the status by name.",
            )
        return Bound(attestation=attestation_result.digest(parameters.attestation), policies=parameters.bundle_digest)


@dataclass(frozen=True, slots=True)
class Session:
    """An open session: who the host is, and the key that signs the requests (never shown)."""

    client: Client = field(repr=False)
    established: Established = field(repr=False)
    parameters: SessionParameters = field(repr=False)
    attestation: AttestationResult

    @property
    def name(self) -> str:
        """The session's id."""
        return self.established.name

    @property
    def expires_at(self) -> int:
        """When it ends, in seconds since the Unix epoch."""
        return self.established.expires_at

    def submit(
        self,
        module: bytes,
        input_: bytes,
        *,
        limits: JobLimits = DEFAULT_LIMITS,
        level: Level = Level.HIGH,
        result: ResultType = ResultType.BYTES,
        timeout_s: float | None = None,
    ) -> JobResult:
        """Runs a job and checks its receipt. Raises `RefusedError` or `ClientError`.

        The module is checked at `level` before it runs, and its output afterwards as being a `result`.
        """
        return self.send(self.sign_job(module, input_, limits, level=level, result=result), timeout_s=timeout_s)

    def sign_job(
        self,
        module: bytes,
        input_: bytes,
        limits: JobLimits = DEFAULT_LIMITS,
        *,
        level: Level = Level.HIGH,
        result: ResultType = ResultType.BYTES,
    ) -> bytes:
        """A submission signed by the caller: what `send` takes."""
        now = self.client.now()
        statement = JobStatement(
            host=self.attestation.subject,
            principal=self.client.signer.key_id,
            nonce=secrets.token_bytes(16),
            issued_at=now,
            expires_at=now + SIGNATURE_LIFETIME_S,
            module_digest=digest(module),
            input_digest=digest(input_),
            limits=limits,
            level=level,
            result=result,
        )
        return sign_job(self.client.signer, statement, module, input_)

    def sign_request(self, submission: bytes) -> dict[str, str]:
        """The header fields that sign the request which carries `submission`."""
        return self._sign(JOBS_PATH, submission, "")

    def add_factors(self, prove: Prove, *, timeout_s: float | None = None) -> tuple[str, ...]:
        """Shows further identity factors in this session; the names of all that it has then.

        `prove` is given the challenge (32 bytes) that evidence must be bound to, and gives the evidence by factor, such
        as a security key's assertion under "webauthn". Raises `RefusedError` where it proves nothing.
        """
        nonce = secrets.token_urlsafe(18)
        body = msgspec.msgpack.encode(dict(prove(step_up_challenge(self.name, nonce))))
        answer = self.client.post(FACTORS_PATH, body, self._sign(FACTORS_PATH, body, nonce), timeout_s=timeout_s)
        try:
            return msgspec.msgpack.decode(answer.body, type=tuple[str, ...])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _malformed(str(error)) from None

    def _sign(self, path: str, body: bytes, nonce: str) -> dict[str, str]:
        return self.sign(httpsig.Target("POST", self.client.authority, path), body, nonce=nonce)

    def sign(self, target: httpsig.Target, body: bytes, *, nonce: str = "") -> dict[str, str]:
        """The header fields that sign a request for `target` in this session, to any upstream behind its gateway."""
        return httpsig.sign(
            self.established.key(REQUEST_KEY),
            target,
            body,
            session=self.name,
            nonce=nonce or secrets.token_urlsafe(18),
            now=self.client.now(),
            lifetime_s=SIGNATURE_LIFETIME_S,
        )

    def send(
        self, submission: bytes, headers: dict[str, str] | None = None, *, timeout_s: float | None = None
    ) -> JobResult:
        """Sends a signed submission; `headers` are those of `sign_request`, made here unless given."""
        signed = self.sign_request(submission) if headers is None else headers
        try:
            answer = _decode(self.client.post(JOBS_PATH, submission, signed, timeout_s=timeout_s).body, JobAnswer)
        except RefusedError as refusal:
            raise self._with_receipt(refusal, submission) from None
        receipt = check_receipt(answer.receipt, answer.signature, agent=self.attestation.agent_key)
        self._match(receipt, submission, answer.output, code="")
        return JobResult(answer.output, receipt, answer.receipt, answer.signature, answer.decision_id, answer.trace)

    def _with_receipt(self, refusal: RefusedError, submission: bytes) -> RefusedError:
        if refusal.receipt_bytes:
            receipt = check_receipt(refusal.receipt_bytes, refusal.receipt_signature, agent=self.attestation.agent_key)
            self._match(receipt, submission, b"", code=refusal.code.name)
            refusal.receipt = receipt
        return refusal

    def _match(self, receipt: Receipt, submission: bytes, output: bytes, *, code: str) -> None:
        """Raises unless `receipt` is that of this job in this session, with this outcome."""
        sent = parse_submission(submission)
        pairs = (
            ("code", receipt.code, code),
            ("statement_digest", receipt.statement_digest, digest(sent[0].statement)),
            ("module_digest", receipt.module_digest, sent[1].module_digest),
            ("input_digest", receipt.input_digest, sent[1].input_digest),
            ("result_digest", receipt.result_digest, digest(output)),
            ("principal", receipt.principal, self.client.signer.key_id),
            ("session", receipt.session, self.name),
            ("attestation_digest", receipt.attestation_digest, attestation_result.digest(self.parameters.attestation)),
            ("bundle_digest", receipt.bundle_digest, self.parameters.bundle_digest),
            ("limits", receipt.limits, sent[1].limits),
            ("level", receipt.level, sent[1].level),
            ("result", receipt.result, sent[1].result),
        )
        for name, said, expected in pairs:
            if said != expected:
                raise ClientError(
                    RECEIPT_MISMATCH,
                    "The receipt speaks of something else than this job and this session.",
                    field=name,
                    hint="Treat the result as unproven.",
                )


def _refusal(answer: Answer) -> RefusedError:
    if answer.media != PROBLEM:
        raise ClientError(
            ANSWER_MALFORMED,
            f"The gateway answered {answer.status} with {answer.media}, not with a result or a problem.",
            hint="See that the address is a Ringfence gateway's.",
        )
    try:
        problem = msgspec.json.decode(answer.body, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _malformed(str(error)) from None
    kinds = {kind.http: kind for kind in Kind}
    return RefusedError(
        Code(problem.code, kinds.get(problem.status, Kind.INTERNAL)),
        problem.message,
        field=problem.field,
        hint=problem.hint,
        decision_id=problem.decision_id,
        trace=problem.trace,
        receipt_bytes=problem.receipt,
        receipt_signature=problem.signature,
        missing=problem.missing,
    )


def _decode(data: bytes, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.msgpack.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _malformed(str(error)) from None


def _malformed(why: str) -> ClientError:
    return ClientError(ANSWER_MALFORMED, f"The gateway's answer does not parse: {why}.")
