"""What an audit log does on its own: how often it signs, when a segment ends, how long records are kept."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one log.

    checkpoint_every_s  shortest time between two checkpoints while records keep coming; the last is always covered
    second_every_s      shortest time between two checkpoints that the second key signs too
    anchor_every_s      shortest time between two increments of the anchor's counter, which wear a TPM out
    segment_bytes       a segment ends with the commit that reaches this size
    segment_age_s       or with the first commit this long after its first record
    keep_bytes          the oldest segments are removed while all of them hold more; 0 keeps everything
    keep_age_s          a segment is removed when its last record is older; 0 keeps everything
    keep_at_least_s     no segment is removed while its last record is younger, whatever the two before say
    """

    checkpoint_every_s: float = 0.25
    second_every_s: float = 60.0
    anchor_every_s: float = 600.0
    segment_bytes: int = 64 * MIB
    segment_age_s: int = 86_400
    keep_bytes: int = 0
    keep_age_s: int = 0
    keep_at_least_s: int = 0

    @property
    def keeps_everything(self) -> bool:
        return not self.keep_bytes and not self.keep_age_s
