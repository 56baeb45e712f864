"""Manage the pinned keys of clients, daemons, verifiers and policy signers; nothing is trusted on first use."""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringfence.trust.pins import Pin

MAX_OVERLAP_DAYS = 366
ROLES = ("client", "gateway", "agent", "verifier", "policy-signer")


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    generate = actions.add_parser(
        "generate",
        help="make a key pair: NAME.key to keep, NAME.pub to hand out",
        description="Make an ML-DSA-65-Ed25519 key pair. NAME.key is private (mode 0600) and stays on this host; "
        "NAME.pub is what others pin. Existing files are never overwritten.",
    )
    generate.add_argument("name", metavar="NAME", help="a plain file name, such as gateway or alice")
    generate.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write into")

    add = actions.add_parser(
        "add",
        help="pin a public key in a role",
        description="Pin a public key. Compare the key id that this prints with the one its owner reads to you. "
        "Pinning the same key again replaces its groups and expiry; another key under a pinned name is refused.",
    )
    _role_and_name(add)
    add.add_argument("public_key", metavar="PUBLIC_KEY_FILE", type=Path, help="the owner's NAME.pub")
    _place(add)
    add.add_argument(
        "--group", metavar="G", action="append", default=[], help="a policy group of the client; may be repeated"
    )
    _expiry(add)

    rotate = actions.add_parser(
        "rotate",
        help="replace a pinned key, with an overlap",
        description="Pin a new key under a pinned name. The old key counts for the overlap, so that its owner can "
        "change over without an interruption; the new pin keeps the groups. Where the old key may be in the wrong "
        "hands, give --overlap-days 0.",
    )
    _role_and_name(rotate)
    rotate.add_argument("public_key", metavar="PUBLIC_KEY_FILE", type=Path, help="the owner's new public key file")
    _place(rotate)
    rotate.add_argument(
        "--overlap-days",
        metavar="N",
        type=int,
        default=7,
        help="how long the old key still counts, 0 to 366 (default 7)",
    )
    _expiry(rotate)

    listing = actions.add_parser("list", help="show every pinned key", description="Show every pinned key.")
    _place(listing)

    remove = actions.add_parser(
        "remove",
        help="stop trusting a key",
        description="Remove every key of a name. A running gateway or agent forgets it when it next loads its list.",
    )
    _role_and_name(remove)
    _place(remove)


def run(arguments: argparse.Namespace) -> int:
    match arguments.action:
        case "generate":
            return _generate(arguments)
        case "add":
            return _add(arguments)
        case "rotate":
            return _rotate(arguments)
        case "remove":
            return _remove(arguments)
        case _:
            return _list(arguments)


def _role_and_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", metavar="ROLE", choices=ROLES, help=f"what the key may be: {', '.join(ROLES)}")
    parser.add_argument("name", metavar="NAME", help="whose key it is; unique within the role")


def _expiry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expires", metavar="DATE", help="when the pin ends: 2027-01-31 or 2027-01-31T12:00:00+01:00 (UTC unless said)"
    )


def _place(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--state", metavar="DIR", type=Path, help="the state folder that holds trust.toml")
    place.add_argument("--file", metavar="FILE", type=Path, help="the trust list itself")


def _file(arguments: argparse.Namespace) -> Path:
    from ringfence.trust.store import FILE_NAME

    path: Path = arguments.file if arguments.file is not None else arguments.state / FILE_NAME
    return path


def _generate(arguments: argparse.Namespace) -> int:
    from ringfence.terminal import print_json
    from ringfence.trust.keys import generate

    pair = generate(arguments.out, arguments.name)
    private, public = (str(arguments.out / f"{arguments.name}.{suffix}") for suffix in ("key", "pub"))
    if arguments.json:
        print_json({"key_id": pair.key_id, "private_key": private, "public_key": public})
    else:
        _say(f"key id       {pair.key_id}", f"private key  {private} (keep it here)", f"public key   {public}")
    return 0


def _add(arguments: argparse.Namespace) -> int:
    from ringfence.trust.keys import load_public
    from ringfence.trust.pins import Pin, Role
    from ringfence.trust.store import change

    now = int(time.time())
    pin = Pin(
        name=arguments.name,
        role=Role(arguments.role),
        public=load_public(arguments.public_key),
        added_at=now,
        groups=tuple(arguments.group),
        expires_at=None if arguments.expires is None else _date(arguments.expires, now),
    )
    change(_file(arguments), lambda trust: trust.add(pin))
    return _done(arguments, "pinned", pin.role.value, pin.name, pin.key_id)


def _rotate(arguments: argparse.Namespace) -> int:
    from ringfence.crypto import key_id
    from ringfence.errors import BAD_ARGUMENT, UsageError
    from ringfence.trust.keys import load_public
    from ringfence.trust.pins import Role
    from ringfence.trust.store import change, load

    if not 0 <= arguments.overlap_days <= MAX_OVERLAP_DAYS:
        raise UsageError(
            BAD_ARGUMENT,
            f"{arguments.overlap_days} is not 0 to {MAX_OVERLAP_DAYS} days.",
            field="--overlap-days",
            hint="Old and new key both count meanwhile: keep it short.",
        )
    role, path, now = Role(arguments.role), _file(arguments), int(time.time())
    public = load_public(arguments.public_key)
    overlap_s = arguments.overlap_days * 86_400
    expires_at = None if arguments.expires is None else _date(arguments.expires, now)
    load(path)  # a list that does not exist is a wrong path, not an empty list
    change(
        path,
        lambda trust: trust.rotate(role, arguments.name, public, now=now, overlap_s=overlap_s, expires_at=expires_at),
    )
    return _done(arguments, "rotated", role.value, arguments.name, key_id(public))


def _remove(arguments: argparse.Namespace) -> int:
    from ringfence.trust.pins import Role
    from ringfence.trust.store import change, load

    role, path = Role(arguments.role), _file(arguments)
    load(path)  # a list that does not exist is a wrong path, not an empty list
    change(path, lambda trust: trust.remove(role, arguments.name))
    return _done(arguments, "removed", role.value, arguments.name, "")


def _list(arguments: argparse.Namespace) -> int:
    from ringfence.terminal import print_json, print_table
    from ringfence.trust.store import load

    now = int(time.time())
    pins = load(_file(arguments)).pins
    if arguments.json:
        print_json({"pins": [_described(pin, now) for pin in pins]})
        return 0
    rows = [("ROLE", "NAME", "KEY ID", "GROUPS", "EXPIRES")]
    for pin in pins:
        expires = "never" if pin.expires_at is None else _iso(pin.expires_at)
        expires += " (expired)" if pin.expired(now) else ""
        rows.append((pin.role.value, pin.name, pin.key_id, ", ".join(pin.groups), expires))
    print_table(rows)
    return 0


def _described(pin: Pin, now: int) -> dict[str, object]:
    return {
        "role": pin.role.value,
        "name": pin.name,
        "key_id": pin.key_id,
        "groups": list(pin.groups),
        "added_at": pin.added_at,
        "expires_at": pin.expires_at,
        "expired": pin.expired(now),
    }


def _done(arguments: argparse.Namespace, what: str, role: str, name: str, key: str) -> int:
    from ringfence.terminal import print_json

    if arguments.json:
        print_json({"done": what, "role": role, "name": name, "key_id": key})
    else:
        _say(f"{what} {role} {name} {key}".rstrip())
    return 0


def _say(*lines: str) -> None:
    from ringfence.terminal import printable

    for line in lines:
        print(printable(line))


def _date(text: str, now: int) -> int:
    from ringfence.errors import BAD_ARGUMENT, UsageError

    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError) as error:
        raise UsageError(
            BAD_ARGUMENT, f"{text!r} is not a date.", field="--expires", hint="Write it as 2027-01-31."
        ) from error
    if seconds <= now:
        raise UsageError(
            BAD_ARGUMENT, f"{text} has passed already.", field="--expires", hint="Give a date in the future."
        )
    return seconds


def _iso(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")
