"""The `[audit]` table that agent and gateway share: how a daemon's log is signed, cut into segments and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self

import msgspec

from ringfence.config.values import resolved

if TYPE_CHECKING:
    from ringfence.audit import Settings

KEEP_AT_LEAST_S: Final = 3600
"""Records younger than this stay whatever the table says: an agent knows from them which grants are spent."""

EXAMPLE: Final = """\
[audit]                                # how the audit log is signed, cut and kept
checkpoint_every_s = 0.25              # shortest time between two signed checkpoints
segment_bytes = 67108864               # a file of records ends with the commit that reaches this size
segment_age_s = 86400                  # or with the first commit after this time
keep_bytes = 0                         # the oldest files go while all hold more; 0: everything is kept
keep_age_s = 0                         # a file goes when its last record is older; 0: everything is kept
second_key = "none"                    # or an SLH-DSA-SHA2-128f key file, which signs checkpoints too
second_every_s = 60.0                  # shortest time between two checkpoints that it signs
anchor = "none"                        # or a counter's file of `ringfence anchor define`, for a log cut back
anchor_every_s = 600.0                 # shortest time between two steps of that counter, which wear a TPM out
"""

_NONE: Final = "none"
_MIB: Final = 1024 * 1024
_DAY_S: Final = 86_400


class SecretFile(str):
    """The path of a file with a secret, resolved against the configuration's folder, or `none`."""

    __slots__ = ()

    @classmethod
    def from_text(cls, text: str, folder: Path) -> Self:
        """The file that `text` names in a file in `folder`. Raises `ValueError` where it can be none."""
        return cls(text if text == _NONE else resolved(text, folder))

    @property
    def path(self) -> Path | None:
        """Where it is, or None without one."""
        return None if self == _NONE else Path(self)


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `ringfence.audit.Settings` says of a daemon's log, the key that signs beside the daemon's own, and the
    counter that anchors it.

    A daemon never removes records of the last hour (`KEEP_AT_LEAST_S`), however small `keep_bytes` and `keep_age_s`.
    """

    checkpoint_every_s: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 0.25
    segment_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024, le=1024 * _MIB)] = 64 * _MIB
    segment_age_s: Annotated[int, msgspec.Meta(ge=60, le=366 * _DAY_S)] = _DAY_S
    keep_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 50)] = 0
    keep_age_s: Annotated[int, msgspec.Meta(ge=0, le=36_600 * _DAY_S)] = 0
    second_key: SecretFile = SecretFile(_NONE)
    second_every_s: Annotated[float, msgspec.Meta(ge=1, le=_DAY_S)] = 60.0
    anchor: SecretFile = SecretFile(_NONE)
    anchor_every_s: Annotated[float, msgspec.Meta(ge=1, le=_DAY_S)] = 600.0

    def log_settings(self) -> Settings:
        """The settings that a log is opened with."""
        from ringfence.audit import Settings

        return Settings(
            checkpoint_every_s=self.checkpoint_every_s,
            second_every_s=self.second_every_s,
            anchor_every_s=self.anchor_every_s,
            segment_bytes=self.segment_bytes,
            segment_age_s=self.segment_age_s,
            keep_bytes=self.keep_bytes,
            keep_age_s=self.keep_age_s,
            keep_at_least_s=KEEP_AT_LEAST_S,
        )
