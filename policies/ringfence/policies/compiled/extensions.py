"""Cedar's extension types: ip, decimal, datetime and duration, read from text as Cedar reads them.

Source: Cedar language guide, "Data types: extension types". Each constructor raises `EvaluationError` for other text.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from ringfence.policies.compiled.values import LONG_MAX, LONG_MIN, EvaluationError

DAY_MS: Final = 86_400_000
_UNITS: Final = (DAY_MS, 3_600_000, 60_000, 1_000, 1)
_DECIMAL: Final = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})")
_DURATION: Final = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m(?!s))?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?"
)
_PREFIX: Final = re.compile(r"0|[1-9][0-9]{0,2}")


@dataclass(frozen=True, slots=True)
class Decimal:
    """A decimal number, in ten thousandths."""

    value: int


@dataclass(frozen=True, slots=True)
class Datetime:
    """A moment, in milliseconds since the Unix epoch."""

    value: int


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of time, in milliseconds."""

    value: int


@dataclass(frozen=True, slots=True)
class Ip:
    """An address with a prefix length: `version` 4 or 6, `address` as a number with its host bits kept."""

    version: int
    address: int
    prefix: int

    @property
    def width(self) -> int:
        """The bits of an address: 32 or 128."""
        return 32 if self.version == 4 else 128

    @property
    def first(self) -> int:
        """The first address of the range."""
        return self.address >> (self.width - self.prefix) << (self.width - self.prefix)

    @property
    def last(self) -> int:
        """The last address of the range."""
        return self.first + (1 << (self.width - self.prefix)) - 1


def decimal(text: str) -> Decimal:
    """The decimal that `text` writes: digits, a point, one to four digits."""
    match = _DECIMAL.fullmatch(text)
    if match is None or len(match[2]) > 19:
        raise EvaluationError("the text is no decimal")
    value = int(match[2]) * 10_000 + int(match[3].ljust(4, "0"))
    return Decimal(within(-value if match[1] else value))


def duration(text: str) -> Duration:
    """The duration that `text` writes: days, hours, minutes, seconds and milliseconds, in this order."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()[1:]):
        raise EvaluationError("the text is no duration")
    total = 0
    for digits, unit in zip(match.groups()[1:], _UNITS, strict=True):
        if digits is not None:
            if len(digits.lstrip("0")) > 19:
                raise EvaluationError("the text is no duration")
            total = within(total + int(digits) * unit * (-1 if match[1] else 1))
    return Duration(total)


def datetime(text: str) -> Datetime:
    """The moment that `text` writes: a date, or a date and a time of day in UTC or with an offset."""
    match = _DATETIME.fullmatch(text)
    if match is None:
        raise EvaluationError("the text is no datetime")
    year, month, day, hour, minute, second, millisecond = (int(match[index] or 0) for index in range(1, 8))
    offset_hour, offset_minute = int(match[9] or 0), int(match[10] or 0)
    if not (
        1 <= month <= 12
        and 1 <= day <= _month_days(year, month)
        and hour < 24
        and minute < 60
        and second < 60
        and offset_hour < 24
        and offset_minute < 60
    ):
        raise EvaluationError("the text is no datetime")
    offset = (offset_hour * 60 + offset_minute) * (-1 if match[8] == "-" else 1)
    moment = ((hour * 60 + minute - offset) * 60 + second) * 1000 + millisecond
    return Datetime(_days(year, month, day) * DAY_MS + moment)


def ip(text: str) -> Ip:
    """The address or range that `text` writes."""
    address, slash, prefix = text.partition("/")
    if not address.isascii() or "%" in address or (":" in address and "." in address):
        raise EvaluationError("the text is no IP address")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise EvaluationError("the text is no IP address") from error
    width = parsed.max_prefixlen
    if not slash:
        return Ip(parsed.version, int(parsed), width)
    if not _PREFIX.fullmatch(prefix) or int(prefix) > width:
        raise EvaluationError("the text is no IP address")
    return Ip(parsed.version, int(parsed), int(prefix))


def within(value: int) -> int:
    """`value`, or `EvaluationError` where 64 bits do not hold it."""
    if LONG_MIN <= value <= LONG_MAX:
        return value
    raise EvaluationError("integer overflow")


def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, year 0 included, which Python's dates lack."""
    if month <= 2:
        year -= 1
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (9 if month <= 2 else -3)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
