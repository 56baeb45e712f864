"""Pinned keys: whom this installation knows, in which role, until when. Nothing is trusted on first use."""

from __future__ import annotations

from ringfence.trust.errors import TrustError
from ringfence.trust.keys import KeyPair, generate, load_private, load_public
from ringfence.trust.pins import Pin, Role, TrustList
from ringfence.trust.store import change, emit, load, parse, save

__all__ = [
    "KeyPair",
    "Pin",
    "Role",
    "TrustError",
    "TrustList",
    "change",
    "emit",
    "generate",
    "load",
    "load_private",
    "load_public",
    "parse",
    "save",
]
