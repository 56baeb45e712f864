"""Make, rotate, export and import this host's own private keys."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringfence.keystore.index import StoredKey
    from ringfence.keystore.store import KeyStore

DEFAULT_ALGORITHM = "ML-DSA-65-Ed25519"
MAX_OVERLAP_DAYS = 3660


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    generate = actions.add_parser(
        "generate",
        help="make a key under a new name",
        description="Make a key pair and keep it in the store. The default algorithm signs everything of Ringfence's "
        "own; X-Wing opens envelopes, SLH-DSA-SHA2-128f signs them.",
    )
    _name(generate)
    _store(generate)
    generate.add_argument(
        "--algorithm", metavar="A", default=DEFAULT_ALGORITHM, help=f"what the key is for (default {DEFAULT_ALGORITHM})"
    )

    listing = actions.add_parser("list", help="show every key", description="Show every version of every key.")
    _store(listing)

    rotate = actions.add_parser(
        "rotate",
        help="make a new version of a key",
        description="Make a new version of a key. The old one still opens what was sealed to it until the overlap "
        "ends, and its private half is erased after that. Tell those who pin the key: `ringfence trust rotate`.",
    )
    _name(rotate)
    _store(rotate)
    rotate.add_argument(
        "--overlap-days", metavar="N", type=int, default=7, help="how long the old version still counts (default 7)"
    )

    export = actions.add_parser(
        "export",
        help="write a key to a file, the public half unless told otherwise",
        description="Write the newest version of a key to a new file. `ringfence` is the form that others pin, for "
        "ML-DSA-65-Ed25519 alone; PEM, DER and JWK are the forms of the standards, where one defines them.",
    )
    _name(export)
    _store(export)
    export.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file to write; never overwritten")
    export.add_argument("--form", choices=("ringfence", "pem", "der", "jwk"), default="pem", help="default: pem")
    export.add_argument(
        "--private", action="store_true", help="the private half too, unencrypted, in a file of mode 0600"
    )

    import_ = actions.add_parser(
        "import",
        help="take a private key that was made elsewhere",
        description="Take an unencrypted private key in PEM, DER or JWK into the store, under a new name. Whoever "
        "made it, and the file that it came in, still hold it: a key that is generated here is better.",
    )
    _name(import_)
    import_.add_argument("file", metavar="FILE", type=Path, help="the private key, readable by its owner alone")
    _store(import_)

    prune = actions.add_parser(
        "prune",
        help="erase the versions that have retired",
        description="Overwrite and remove the private halves whose overlap has ended. Best effort: flash disks, "
        "snapshots and backups may hold what was there.",
    )
    _store(prune)


def run(arguments: argparse.Namespace) -> int:
    from ringfence.keystore.store import KeyStore

    store, now = KeyStore(arguments.store), int(time.time())
    match arguments.action:
        case "generate":
            return _made(arguments, store.generate(arguments.name, arguments.algorithm, now=now))
        case "rotate":
            return _made(arguments, store.rotate(arguments.name, now=now, overlap_s=_overlap_s(arguments)))
        case "import":
            return _import(arguments, store, now)
        case "export":
            return _export(arguments, store, now)
        case "prune":
            return _table(arguments, store.prune(now=now), now)
        case _:
            return _table(arguments, store.index().keys, now)


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the key's name in the store")


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="DIR", type=Path, required=True, help="the store's own folder")


def _overlap_s(arguments: argparse.Namespace) -> int:
    from ringfence.errors import BAD_ARGUMENT, UsageError

    days: int = arguments.overlap_days
    if not 0 <= days <= MAX_OVERLAP_DAYS:
        raise UsageError(BAD_ARGUMENT, f"{days} is not 0 to {MAX_OVERLAP_DAYS} days.", field="--overlap-days")
    return days * 86_400


def _import(arguments: argparse.Namespace, store: KeyStore, now: int) -> int:
    from ringfence.crypto.forms import import_private
    from ringfence.trust.files import read
    from ringfence.trust.keys import only_the_owner

    material = import_private(read(arguments.file, only_the_owner))
    return _made(arguments, store.add(arguments.name, material, now=now))


def _export(arguments: argparse.Namespace, store: KeyStore, now: int) -> int:
    from ringfence.errors import BAD_ARGUMENT, UsageError
    from ringfence.trust.files import write_new

    key = store.usable(arguments.name, now=now)[0]
    data = _written(arguments, store, key, now)
    try:
        write_new(arguments.out, data, 0o600 if arguments.private else 0o644)
    except FileExistsError as error:
        raise UsageError(
            BAD_ARGUMENT, f"{arguments.out} is there already.", field="--out", hint="Choose another file."
        ) from error
    return _made(arguments, key)


def _written(arguments: argparse.Namespace, store: KeyStore, key: StoredKey, now: int) -> bytes:
    from ringfence.crypto.forms import Form, export_private, export_public
    from ringfence.errors import BAD_ARGUMENT, UsageError
    from ringfence.trust.keys import PRIVATE, PUBLIC, armour

    if arguments.form != "ringfence":
        form = Form(arguments.form)
        if arguments.private:
            return export_private(store.open(key, now=now), form)
        return export_public(key.algorithm, key.public, form)
    if key.algorithm != DEFAULT_ALGORITHM:
        raise UsageError(
            BAD_ARGUMENT, f"{key.algorithm} keys have no such form.", field="--form", hint="Use pem, der or jwk."
        )
    return armour(PRIVATE, store.open(key, now=now).private) if arguments.private else armour(PUBLIC, key.public)


def _made(arguments: argparse.Namespace, key: StoredKey) -> int:
    from ringfence.terminal import print_json, printable

    if arguments.json:
        print_json(_described(key))
    else:
        print(printable(f"{key.name} version {key.version}  {key.algorithm}  {key.key_id}"))
    return 0


def _table(arguments: argparse.Namespace, keys: tuple[StoredKey, ...], now: int) -> int:
    from ringfence.terminal import print_json, print_table

    if arguments.json:
        print_json({"keys": [{**_described(key), "retired": key.retired(now)} for key in keys]})
        return 0
    rows = [("NAME", "VERSION", "ALGORITHM", "KEY ID", "RETIRES", "SEALED BY")]
    for key in keys:
        retires = "no" if key.retires_at is None else _iso(key.retires_at)
        retires += " (retired)" if key.retired(now) else ""
        rows.append((key.name, str(key.version), key.algorithm, key.key_id, retires, key.sealed_by or "nothing"))
    print_table(rows)
    return 0


def _described(key: StoredKey) -> dict[str, object]:
    return {
        "name": key.name,
        "version": key.version,
        "algorithm": key.algorithm,
        "key_id": key.key_id,
        "file": key.file_name,
        "created_at": key.created_at,
        "retires_at": key.retires_at,
        "sealed_by": key.sealed_by,
    }


def _iso(seconds: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")
