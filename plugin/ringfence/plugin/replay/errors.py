"""Error codes of the ledger of nonces, beside those of the stages."""

from __future__ import annotations

from typing import Final

from ringfence.errors import Code, Kind

REPLAY_QUOTA: Final = Code("integrity.replay_quota", Kind.EXHAUSTED)
