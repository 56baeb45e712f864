"""Loads a bundle that must be signed: its files are read once, checked, and only then parsed."""

from __future__ import annotations

from importlib.resources.abc import Traversable

from ringfence.policies.assembly import assemble
from ringfence.policies.bundle import Bundle
from ringfence.policies.folder import open_bundled, read_files, read_signature
from ringfence.policies.signature import Signer, verify_signature
from ringfence.trust import TrustList


def load_signed(folder: Traversable, trust: TrustList, now: int) -> tuple[Bundle, Signer]:
    """The bundle in a folder and who vouches for it; `now` in seconds since the Unix epoch.

    What is parsed is what was checked, even where somebody writes to the folder meanwhile. Raises `PolicyError` as
    `verify_signature` and `assemble` do.
    """
    files, signature = read_files(folder), read_signature(folder)
    signer = verify_signature(files, signature, trust, now, open_bundled)
    return assemble(files, open_bundled), signer
