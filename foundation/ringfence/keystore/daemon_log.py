"""A daemon's audit log: opened as its `[audit]` table says, with a record of its start, and of its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path

from ringfence.audit import Anchor, AuditLog, Operator, Record
from ringfence.audit.checkpoint import Signer
from ringfence.config.audit_section import AuditSettings
from ringfence.crypto import COMPOSITE
from ringfence.keystore.signing import SigningProcess, load_second_key


@contextmanager
def open_daemon_log(
    state: Path,
    component: str,
    signer: Signer,
    settings: AuditSettings,
    *,
    clock_ns: Callable[[], int],
    further: Sequence[Record] = (),
    anchor: Anchor | None = None,
) -> Iterator[AuditLog]:
    """The log in `state`/audit/`component`, signed by `signer` (a composite key) and by the table's second key.

    `started` and then `further` are durable when the body begins; `stopped` is appended when it ends. `clock_ns` gives
    nanoseconds since the Unix epoch. Call it in a thread that lives as long as the log. Raises `AuditError`,
    `KeyStoreError` and `TrustError` where the log or its second key cannot be used, and `AuditError` at the end where
    the last records could not be kept or signed.
    """
    version = metadata.version("ringfence")
    with ExitStack() as stack:
        second = load_second_key(settings)
        # Ended after the log is closed, because it signs the last checkpoint too.
        process = stack.enter_context(SigningProcess(second)) if second is not None else None
        log = stack.enter_context(
            AuditLog.open(
                state / "audit" / component,
                signer,
                clock_ns=clock_ns,
                verify=COMPOSITE.verify,
                second=process,
                anchor=anchor,
                settings=settings.log_settings(),
            )
        )
        started = Operator(event="started", component=component, version=version)
        *_, last = [log.append(record) for record in (started, *further)]
        log.wait(last)
        try:
            yield log
        finally:
            log.append(Operator(event="stopped", component=component, version=version))
