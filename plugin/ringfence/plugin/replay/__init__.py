"""Against replay: a nonce is accepted once, for as long as the message that carries it could still be valid. Pure."""

from __future__ import annotations

from ringfence.plugin.replay.cache import ReplayCache
from ringfence.plugin.replay.ledger import NonceLedger, Spent, spent_nonces

__all__ = ["NonceLedger", "ReplayCache", "Spent", "spent_nonces"]
