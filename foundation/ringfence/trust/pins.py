"""The pinned keys as values: who may be what, and the look-ups that decide it."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ringfence.crypto import key_id
from ringfence.trust.errors import CONFLICT, EXPIRED, MALFORMED, NO_SUCH_PIN, UNKNOWN_KEY, WRONG_ROLE, TrustError

PUBLIC_KEY_BYTES = 1984  # ML-DSA-65 (1952) and Ed25519 (32)
MAX_NAME = 128
MAX_GROUPS = 64
TIME_LIMIT = 253_402_300_800  # the year 10000, where dates end


class Role(enum.Enum):
    """What a pinned key may be used for; a key counts for nothing outside its role."""

    CLIENT = "client"
    GATEWAY = "gateway"
    AGENT = "agent"
    VERIFIER = "verifier"
    POLICY_SIGNER = "policy-signer"


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned key: `public` is an ML-DSA-65-Ed25519 public key (1984 bytes), times are seconds since 1970 (UTC).

    `groups` are the policy groups of a client, and empty for every other role. A pin whose `expires_at` is None
    stays until it is removed. Raises `TrustError` trust.malformed where a field cannot be meant.
    """

    name: str
    role: Role
    public: bytes
    added_at: int
    groups: tuple[str, ...] = ()
    expires_at: int | None = None
    key_id: str = field(init=False, compare=False)
    """The name of the key itself: "rf1" and the unpadded base64url of its SHA-256."""

    def __post_init__(self) -> None:
        for text, where in ((self.name, "name"), *((group, "groups") for group in self.groups)):
            if not 0 < len(text) <= MAX_NAME or not text.isprintable():
                raise TrustError(MALFORMED, f"{text!r} is not 1 to {MAX_NAME} printable characters.", field=where)
        if len(self.public) != PUBLIC_KEY_BYTES:
            raise TrustError(
                MALFORMED,
                f"the key of {self.name!r} has {len(self.public)} bytes, not {PUBLIC_KEY_BYTES}.",
                field="public_key",
            )
        if not all(0 <= time < TIME_LIMIT for time in (self.added_at, self.expires_at or 0)):
            raise TrustError(
                MALFORMED, f"a time of {self.name!r} is outside the years 1970 to 9999.", field="expires_at"
            )
        if self.groups and self.role is not Role.CLIENT:
            raise TrustError(
                MALFORMED, f"{self.name!r} is a {self.role.value}; only clients have groups.", field="groups"
            )
        if len(set(self.groups)) != len(self.groups) or len(self.groups) > MAX_GROUPS:
            raise TrustError(
                MALFORMED, f"{self.name!r} names a group twice, or more than {MAX_GROUPS} groups.", field="groups"
            )
        object.__setattr__(self, "key_id", key_id(self.public))

    def expired(self, now: int) -> bool:
        """Whether the pin no longer counts at `now`."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class TrustList:
    """Every pinned key. Within a role a key has one name, and a name one key, or two while it changes from one to the
    other: the older one first, and with an expiry. Anything else is `TrustError` trust.conflict.
    """

    pins: tuple[Pin, ...] = ()
    _by_key: Mapping[str, tuple[Pin, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names: dict[tuple[Role, str], list[Pin]] = {}
        by_key: dict[str, tuple[Pin, ...]] = {}
        for pin in self.pins:
            twin = next((held for held in by_key.get(pin.key_id, ()) if held.role is pin.role), None)
            if twin is not None:
                where = "twice" if twin.name == pin.name else f"under the name {twin.name!r} already"
                raise TrustError(
                    CONFLICT,
                    f"the key of the {pin.role.value} {pin.name!r} is pinned {where}.",
                    field="public_key",
                    hint=f"To rename it, first run: ringfence trust remove {pin.role.value} "
                    f"{shlex.quote(twin.name)} --state DIR",
                )
            by_key[pin.key_id] = (*by_key.get(pin.key_id, ()), pin)
            names.setdefault((pin.role, pin.name), []).append(pin)
        for (role, name), held in names.items():
            if len(held) > 2 or (len(held) == 2 and held[0].expires_at is None):
                raise TrustError(
                    CONFLICT,
                    f"the {role.value} {name!r} has {len(held)} keys, and no overlap that ends.",
                    field="name",
                    hint="Remove one; `ringfence trust rotate` replaces a key with an overlap.",
                )
        object.__setattr__(self, "_by_key", by_key)

    def find(self, role: Role, key: str, now: int) -> Pin:
        """The pin of the key with the id `key` in `role`, valid at `now` (seconds since 1970).

        Raises `TrustError`: trust.unknown_key, trust.wrong_role where the key is pinned for something else only,
        trust.expired.
        """
        held = self._by_key.get(key, ())
        if not held:
            raise TrustError(
                UNKNOWN_KEY,
                f"the {role.value} key {key!r} is not pinned here.",
                field="key_id",
                hint=f"An operator can pin it with `ringfence trust add {role.value}`.",
            )
        for pin in held:
            if pin.role is role:
                if pin.expired(now):
                    raise TrustError(
                        EXPIRED,
                        f"the pin of the {role.value} {pin.name!r} has expired.",
                        field="key_id",
                        hint="An operator can pin it again with a later date.",
                    )
                return pin
        raise TrustError(
            WRONG_ROLE,
            f"the key {key!r} is pinned, but not as a {role.value}.",
            field="key_id",
            hint="Use the key that was pinned for this role.",
        )

    def by_role(self, role: Role, now: int) -> tuple[Pin, ...]:
        """Every pin of `role` that is valid at `now`, in the order in which they were added."""
        return tuple(pin for pin in self.pins if pin.role is role and not pin.expired(now))

    def add(self, pin: Pin) -> TrustList:
        """The list with `pin`. The same key again under its name replaces groups and expiry; another key is refused.

        Raises `TrustError` trust.conflict.
        """
        held = [other for other in self.pins if (other.role, other.name) == (pin.role, pin.name)]
        if not held:
            return TrustList((*self.pins, pin))
        if pin.public not in [other.public for other in held]:
            raise TrustError(
                CONFLICT,
                f"the {pin.role.value} {pin.name!r} is pinned with another key, {held[-1].key_id}.",
                field="name",
                hint=f"If the key really changed, run: ringfence trust rotate {pin.role.value} "
                f"{shlex.quote(pin.name)} FILE --state DIR",
            )
        return TrustList(tuple(pin if other in held and other.public == pin.public else other for other in self.pins))

    def rotate(
        self, role: Role, name: str, public: bytes, *, now: int, overlap_s: int, expires_at: int | None = None
    ) -> TrustList:
        """The list where `name` has the new key `public`, and the old one for `overlap_s` more seconds at most.

        The new pin keeps the groups; `expires_at` is its own. Without an overlap the old key stops counting at once.
        Raises `TrustError`: trust.no_such_pin, trust.conflict where the key is the same, pinned in this role already,
        or an earlier change of key has not ended.
        """
        held = [pin for pin in self.pins if (pin.role, pin.name) == (role, name)]
        if not held:
            raise _no_such_pin(role, name)
        if public in [pin.public for pin in held]:
            raise TrustError(
                CONFLICT,
                f"the {role.value} {name!r} has this key already.",
                field="public_key",
                hint="Give the new key's public file.",
            )
        current, others = held[-1], [pin for pin in self.pins if pin not in held]
        if len(held) == 2 and not held[0].expired(now) and overlap_s:
            raise TrustError(
                CONFLICT,
                f"the {role.value} {name!r} is changing its key already, and {held[0].key_id} still counts.",
                field="name",
                hint="Wait until that key has expired, or rotate without an overlap.",
            )
        new = Pin(name, role, public, now, current.groups, expires_at)
        ends = now + overlap_s if current.expires_at is None else min(now + overlap_s, current.expires_at)
        old = (replace(current, expires_at=ends),) if ends > now else ()
        return TrustList((*others, *old, new))

    def remove(self, role: Role, name: str) -> TrustList:
        """The list without the keys of `name` in `role`; `TrustError` trust.no_such_pin where there is none."""
        left = tuple(pin for pin in self.pins if (pin.role, pin.name) != (role, name))
        if len(left) == len(self.pins):
            raise _no_such_pin(role, name)
        return TrustList(left)


def _no_such_pin(role: Role, name: str) -> TrustError:
    return TrustError(
        NO_SUCH_PIN,
        f"no {role.value} named {name!r} is pinned.",
        field="name",
        hint="`ringfence trust list` shows every pin.",
    )
