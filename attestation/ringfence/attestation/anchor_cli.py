"""Make, show and remove the TPM counter that anchors an audit log."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

MAX_OWNER_AUTH = 64


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ringfence anchor`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    define = actions.add_parser(
        "define",
        help="make a counter for a log",
        description="Make a counter in the TPM for one log, and the file that the log's daemon opens it with. The log "
        "is named by the key that signs it.",
    )
    _file(define)
    _key(define)
    define.add_argument(
        "--index",
        metavar="N",
        type=_index,
        help="the NV index, an even number from 0x01805200 (the default) to 0x018052fe; each log needs its own",
    )
    _tpm(define)

    show = actions.add_parser(
        "show",
        help="say what a counter shows",
        description="Say what a log's counter shows now, as `ringfence audit verify --counter` takes it.",
    )
    _file(show)
    _key(show)

    remove = actions.add_parser(
        "remove",
        help="remove a counter for good",
        description="Remove a counter from the TPM, also one whose file is lost or whose definition was cut short. "
        "The log that it anchored is refused from then on.",
    )
    remove.add_argument("index", metavar="INDEX", type=_index, help="the NV index, as the counter file names it")
    _tpm(remove)


def run(arguments: argparse.Namespace) -> int:
    """Does what the action says."""
    from ringfence.attestation.anchoring import FIRST_INDEX, define_anchor, open_anchor, remove_anchor

    match arguments.action:
        case "define":
            index = FIRST_INDEX if arguments.index is None else arguments.index
            tcti, owner_auth = _tcti(arguments), _owner_auth(arguments)
            try:
                anchor = define_anchor(
                    arguments.file, _log(arguments), tcti, random=os.urandom, index=index, owner_auth=owner_auth
                )
            except FileExistsError as error:
                raise _taken(arguments.file) from error
            return _print(arguments, anchor.tcti, anchor.index, 0)
        case "show":
            anchor = open_anchor(arguments.file, _log(arguments))
            return _print(arguments, anchor.tcti, anchor.index, anchor.read())
        case _:
            tcti = _tcti(arguments)
            remove_anchor(arguments.index, tcti, owner_auth=_owner_auth(arguments))
            return _print(arguments, tcti, arguments.index, None)


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="the counter file, mode 0600")


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", metavar="FILE", type=Path, required=True, help="the public key that the log's checkpoints verify with"
    )


def _tpm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tcti", metavar="T", help="the TPM: device:/dev/tpmrm0, or swtpm:path=/path (default: this host's)"
    )
    parser.add_argument(
        "--owner-auth",
        metavar="FILE",
        type=Path,
        help="a file with the authorisation value of the owner hierarchy, where it has one; a newline at its end does "
        "not count",
    )


def _index(text: str) -> int:
    return int(text, 0)


def _log(arguments: argparse.Namespace) -> str:
    from ringfence.crypto import key_id
    from ringfence.trust import load_public

    return key_id(load_public(arguments.key))


def _tcti(arguments: argparse.Namespace) -> str:
    from ringfence.attestation.attester import discover_tcti
    from ringfence.attestation.errors import TPM_MISSING, AttestationError

    tcti = arguments.tcti or discover_tcti(os.environ, os.path.exists)
    if tcti is None:
        raise AttestationError(TPM_MISSING, "This host has no TPM.", field="--tcti", hint="Name one with --tcti.")
    return str(tcti)


def _owner_auth(arguments: argparse.Namespace) -> bytes:
    from ringfence.errors import BAD_ARGUMENT, UsageError
    from ringfence.trust.files import read
    from ringfence.trust.keys import only_the_owner

    if arguments.owner_auth is None:
        return b""
    value = read(arguments.owner_auth, only_the_owner).removesuffix(b"\n")
    if len(value) > MAX_OWNER_AUTH:
        raise UsageError(BAD_ARGUMENT, f"It has more than {MAX_OWNER_AUTH} bytes.", field="--owner-auth")
    return value


def _taken(path: Path) -> Exception:
    from ringfence.errors import BAD_ARGUMENT, UsageError

    return UsageError(BAD_ARGUMENT, f"{path} is there already.", field="FILE", hint="Choose another file.")


def _print(arguments: argparse.Namespace, tcti: str, index: int, value: int | None) -> int:
    """`value` is what the counter shows, None where it is gone."""
    from ringfence.terminal import print_json, printable

    if arguments.json:
        print_json({"tcti": tcti, "index": f"{index:#010x}", "value": value})
    else:
        shown = "removed" if value is None else str(value)
        print(printable(f"{index:#010x}  {shown}  {tcti}"))
    return 0
