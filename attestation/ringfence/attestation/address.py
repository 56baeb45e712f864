"""Where a TPM is: the addresses of the TPM software stack (TCTI) that Ringfence uses, of the many that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ringfence.attestation.errors import TPM_ADDRESS, AttestationError

Kind = Literal["device", "swtpm"]
_PREFIXES: Final[tuple[tuple[Kind, str], ...]] = (("device", "device:"), ("swtpm", "swtpm:path="))


@dataclass(frozen=True, slots=True)
class TpmAddress:
    """A TPM's character device, or the socket of a software TPM; `path` is absolute."""

    kind: Kind
    path: str


def parse_address(tcti: str) -> TpmAddress:
    """The address in `device:/path` or `swtpm:path=/path`; raises `attestation.tpm_address` for any other.

    The stack would load any library that a TCTI names, so nothing else ever reaches it.
    """
    for kind, prefix in _PREFIXES:
        path = tcti.removeprefix(prefix)
        if path != tcti and path.startswith("/") and "," not in path and "\0" not in path:
            return TpmAddress(kind, path)
    raise AttestationError(
        TPM_ADDRESS,
        f"{tcti!r} does not name a TPM.",
        hint="Write device:/dev/tpmrm0, or swtpm:path=/absolute/path for a software TPM.",
    )
