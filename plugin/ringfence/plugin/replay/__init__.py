"""Against replay: a nonce is accepted once, for as long as the message that carries it could still be valid. Pure."""

from __future__ import annotations

from typing import Final

from ringfence import httpsig
from ringfence.plugin.replay.ledger import NonceLedger, Spent, spent_nonces

__all__ = ["MESSAGE_LIFETIME_S", "NonceLedger", "Spent", "spent_nonces"]

MESSAGE_LIFETIME_S: Final = httpsig.MAX_LIFETIME_S + 2 * httpsig.SKEW_S
"""How long from now on a signed message may be valid at most, the skew of both clocks included."""
