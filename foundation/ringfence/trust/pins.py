"""The pinned keys as values: who may be what, and the look-ups that decide it."""

from __future__ import annotations

import enum
import shlex
from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        for text, field in ((self.name, "name"), *((group, "groups") for group in self.groups)):
            if not 0 < len(text) <= MAX_NAME or not text.isprintable():
                raise TrustError(MALFORMED, f"{text!r} is not 1 to {MAX_NAME} printable characters.", field=field)
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

    @property
    def key_id(self) -> str:
        """The name of the key itself: "rf1" and the unpadded base64url of its SHA-256."""
        return key_id(self.public)

    def expired(self, now: int) -> bool:
        """Whether the pin no longer counts at `now`."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class TrustList:
    """Every pinned key. Within a role a name has one key and a key has one name; else `TrustError` trust.conflict."""

    pins: tuple[Pin, ...] = ()

    def __post_init__(self) -> None:
        names: set[tuple[Role, str]] = set()
        keys: dict[tuple[Role, bytes], str] = {}
        for pin in self.pins:
            if (pin.role, pin.name) in names:
                raise TrustError(
                    CONFLICT, f"the {pin.role.value} {pin.name!r} is pinned twice.", field="name", hint="Remove one."
                )
            if twin := keys.get((pin.role, pin.public)):
                raise TrustError(
                    CONFLICT,
                    f"the key of the {pin.role.value} {pin.name!r} is pinned under the name {twin!r} already.",
                    field="public_key",
                    hint=f"To rename it, first run: ringfence trust remove {pin.role.value} {shlex.quote(twin)} "
                    "--state DIR",
                )
            names.add((pin.role, pin.name))
            keys[pin.role, pin.public] = pin.name

    def find(self, role: Role, key: str, now: int) -> Pin:
        """The pin of the key with the id `key` in `role`, valid at `now` (seconds since 1970).

        Raises `TrustError`: trust.unknown_key, trust.wrong_role where the key is pinned for something else only,
        trust.expired.
        """
        held = [pin for pin in self.pins if pin.key_id == key]
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
        others = []
        for held in self.pins:
            if (held.role, held.name) != (pin.role, pin.name):
                others.append(held)
            elif held.public != pin.public:
                raise TrustError(
                    CONFLICT,
                    f"the {pin.role.value} {pin.name!r} is pinned with another key, {held.key_id}.",
                    field="name",
                    hint=f"If the key really changed, first run: ringfence trust remove {pin.role.value} "
                    f"{shlex.quote(pin.name)} --state DIR",
                )
        return TrustList((*others, pin))

    def remove(self, role: Role, name: str) -> TrustList:
        """The list without the pin of `name` in `role`; `TrustError` trust.no_such_pin where there is none."""
        left = tuple(pin for pin in self.pins if (pin.role, pin.name) != (role, name))
        if len(left) == len(self.pins):
            raise TrustError(
                NO_SUCH_PIN,
                f"no {role.value} named {name!r} is pinned.",
                field="name",
                hint="`ringfence trust list` shows every pin.",
            )
        return TrustList(left)
