"""Trust bundles from PEM files, read again when a file changes. A file that is gone trusts nobody."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography import x509

from ringfence.config.files import read_bounded
from ringfence.crypto import digest
from ringfence.plugin.identity import chains
from ringfence.plugin.identity.errors import SETTINGS_INVALID, IdentityError
from ringfence.plugin.identity.spiffe import is_trust_domain
from ringfence.plugin.identity.svid import Bundles

MAX_AUTHORITIES: Final = 64


def parse_authorities(data: bytes, source: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file. Raises `identity.settings_invalid`; `source` names the file."""
    try:
        found = tuple(x509.load_pem_x509_certificates(data))
    except chains.FAULTS:
        found = ()
    if not 0 < len(found) <= MAX_AUTHORITIES:
        raise IdentityError(
            SETTINGS_INVALID,
            f"{source} is not 1 to {MAX_AUTHORITIES} certificates in PEM.",
            field=source,
            hint="Write the authorities' certificates into it, one behind the other.",
        )
    return found


class BundleFiles:
    """Calling it with the time in seconds gives the bundles; it looks at the files once a second at most.

    Raises `identity.settings_invalid` for a trust domain that cannot be one, and whatever reading a file raises.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        for domain in files:
            if not is_trust_domain(domain):
                raise IdentityError(
                    SETTINGS_INVALID,
                    f"{domain!r} cannot name a trust domain.",
                    field="bundles",
                    hint='Write it without a scheme, such as "example.org".',
                )
        self._files = dict(files)
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._bundles = Bundles({}, "")
        self._looked_at = -1
        self(0)

    def __call__(self, now: int) -> Bundles:
        if now == self._looked_at:
            return self._bundles
        self._looked_at = -1
        seen = tuple(self._status(path) for path in self._files.values())
        if seen != self._seen:
            self._seen = ()
            content = {domain: read_bounded(path) for domain, path in self._files.items()}
            authorities = {
                domain: parse_authorities(data, str(self._files[domain])) for domain, data in content.items()
            }
            self._bundles = Bundles(authorities, digest(b"\0".join(content.values())).hex())
            self._seen = seen
        self._looked_at = now
        return self._bundles

    @staticmethod
    def _status(path: Path) -> tuple[int, int, int]:
        try:
            status = os.stat(path)
        except OSError as error:
            raise IdentityError(
                SETTINGS_INVALID,
                f"{path} cannot be read ({error.strerror}), so nobody of its trust domain is known.",
                field=str(path),
                hint="Put the file back.",
            ) from error
        return status.st_ino, status.st_ctime_ns, status.st_size
