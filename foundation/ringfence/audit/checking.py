"""`ringfence audit verify | prove | verify-proof`: what a public key alone can show about a log."""

from __future__ import annotations

import argparse
import base64
import binascii
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ringfence.audit.anchor import check_counter
from ringfence.audit.checkpoint import Keys, Signed, decode_checkpoint
from ringfence.audit.errors import BAD_KEY_FILE, BAD_NOTE, BAD_PROOF, NOT_FOUND, UNSIGNED, AuditError
from ringfence.audit.folder import SECOND_SIGNER, SIGNER, read_layout
from ringfence.audit.notes import MAX_NOTE, Verify
from ringfence.audit.proofs import MAX_PROOF, Consistency, Inclusion, decode_proof
from ringfence.audit.proving import prove_consistency, prove_inclusion
from ringfence.audit.reading import logs_in, readable
from ringfence.audit.selection import document
from ringfence.audit.verifier import TAIL_NOTE, Report, verify_log
from ringfence.errors import BAD_ARGUMENT, RingfenceError, UsageError
from ringfence.terminal import print_json, printable

UNPINNED_NOTE = (
    "The key came from the folder itself and was not pinned, so this shows only that the log agrees with itself: "
    "give the owner's published key with --key."
)
FIRST_ALGORITHM, SECOND_ALGORITHM = "ML-DSA-65-Ed25519", "SLH-DSA-SHA2-128f"
_HEXADECIMAL = re.compile(rb"(?:[0-9a-fA-F]{2})+")
_BEGIN, _END = b"-----BEGIN RINGFENCE PUBLIC KEY-----", b"-----END RINGFENCE PUBLIC KEY-----"


@dataclass(frozen=True, slots=True)
class Algorithms:
    """How signatures are checked, and keys named and read from a standard's form (as algorithm and raw key).

    The log itself depends on no algorithm; the command hands them in.
    """

    first: Verify
    second: Callable[[], Verify]
    key_id: Callable[[bytes], str]
    import_public: Callable[[bytes], tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class _Checked:
    folder: Path
    report: Report
    signer: str
    pinned: bool
    second_signer: str = ""


def configure(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `verify`, `prove` and `verify-proof`."""
    verify = actions.add_parser(
        "verify",
        help="check a log, or each log in a folder, with a public key alone",
        description="Check the chain of records, the Merkle tree over them and the signed checkpoints of a log, or of "
        "each log in the folder's sub-folders. Needs no network and no running Ringfence. Exit status 1 when a log "
        f"does not hold; the first bad record is named. {TAIL_NOTE}",
    )
    verify.add_argument("folder", type=Path, metavar="FOLDER", help="what `ringfence audit path` prints, or one log")
    _keys(verify)
    verify.add_argument(
        "--expect",
        type=Path,
        metavar="CHECKPOINT",
        help="a checkpoint held elsewhere: must be a prefix",
    )
    verify.add_argument("--counter", type=int, metavar="N", help="the value that the log's anchor shows now")

    prove = actions.add_parser(
        "prove",
        help="write a proof that a record is in the log, or that it continues an older checkpoint",
        description="Write a proof that `verify-proof` checks without the log: that record SEQ is in it (a C2SP "
        "tlog-proof with the record in it), or with --from that an older checkpoint's log is the beginning of it.",
    )
    prove.add_argument("folder", type=Path, metavar="FOLDER", help="one log")
    prove.add_argument("seq", type=int, nargs="?", metavar="SEQ", help="the record's number")
    prove.add_argument("--from", dest="older", type=Path, metavar="CHECKPOINT", help="an older checkpoint of this log")
    prove.add_argument("--output", type=Path, metavar="FILE", help="a new file (default: standard output)")

    check = actions.add_parser(
        "verify-proof",
        help="check a proof with a public key alone",
        description="Check a proof that `prove` wrote, without the log. Prints the record that it proves.",
    )
    check.add_argument("proof", type=Path, metavar="PROOF", help="the proof's file")
    check.add_argument("--key", type=Path, metavar="FILE", required=True, help="the owner's public key: a .pub file")
    check.add_argument("--expect", type=Path, metavar="CHECKPOINT", help="the older checkpoint of a consistency proof")


def run(arguments: argparse.Namespace, algorithms: Algorithms) -> int:
    """Runs one of the three. Returns 1 when a log does not hold; raises AuditError or UsageError for the rest."""
    if arguments.action == "verify":
        return _verify(arguments, algorithms)
    if arguments.action == "prove":
        return _prove(arguments)
    return _verify_proof(arguments, algorithms)


def _keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", type=Path, metavar="FILE", help="public key that must have signed: a .pub file")
    parser.add_argument(
        "--second-key",
        type=Path,
        metavar="FILE",
        help="the SLH-DSA public key that must have signed some checkpoints too: what `ringfence keys export` writes",
    )


def _verify(arguments: argparse.Namespace, algorithms: Algorithms) -> int:
    expect = _read_checkpoint(arguments.expect) if arguments.expect else None
    logs = logs_in(arguments.folder)
    for given, option in ((expect, "--expect"), (arguments.counter, "--counter")):
        if given is not None and len(logs) > 1:
            raise UsageError(
                BAD_ARGUMENT, f"{option} is about one log, and there are {len(logs)}.", field=option, hint="Name one."
            )
    pinned = _read_key(arguments.key, FIRST_ALGORITHM, algorithms) if arguments.key else None
    second = _read_key(arguments.second_key, SECOND_ALGORITHM, algorithms) if arguments.second_key else None
    checked = [_check(log, pinned, second, expect, arguments.counter, algorithms) for log in logs]
    ok = all(one.report.error is None for one in checked)
    if arguments.json:
        print_json({"logs": [_described(one) for one in checked], "ok": ok, "note": TAIL_NOTE})
        return 0 if ok else 1
    for one in checked:
        sys.stdout.write(f"{printable(_sentence(one))}\n")
    if pinned is None:
        sys.stdout.write(f"{UNPINNED_NOTE}\n")
    sys.stdout.write(f"{TAIL_NOTE}\n")
    return 0 if ok else 1


def _check(
    folder: Path,
    pinned: bytes | None,
    second: bytes | None,
    expect: Signed | None,
    counter: int | None,
    algorithms: Algorithms,
) -> _Checked:
    second_pinned = second is not None
    try:
        public = pinned if pinned is not None else _read_key(folder / SIGNER, FIRST_ALGORITHM, algorithms)
        if second is None and pinned is None and (folder / SECOND_SIGNER).exists():
            second = _read_key(folder / SECOND_SIGNER, SECOND_ALGORITHM, algorithms)
        layout = read_layout(folder)
    except AuditError as error:
        return _Checked(folder, Report(error=error), "", pinned=False)
    keys = Keys(public, algorithms.first)
    if second is not None:
        keys = replace(keys, second_public=second, second_verify=algorithms.second())
    report = verify_log(layout.pieces(), layout.notes(layout.note_sizes()), keys, expect=expect)
    if report.error is None:
        report = replace(report, error=_unproven(report, counter, second_pinned))
    second_signer = algorithms.key_id(second) if second is not None else ""
    return _Checked(folder, report, algorithms.key_id(public), pinned is not None, second_signer)


def _unproven(report: Report, counter: int | None, second_pinned: bool) -> AuditError | None:
    """Why a log whose files agree with each other is still not proven."""
    if report.records and not report.checkpoints:
        return AuditError(
            UNSIGNED,
            "No checkpoint covers any of its records, so nothing in it was checked against a key.",
            hint="After a crash, start its process again: opening the log signs what is there.",
        )
    if report.records and second_pinned and not report.seconded:
        return AuditError(
            UNSIGNED,
            "No checkpoint is signed by the second key that it was checked with.",
            hint="Check with the key that the log's owner published, and without --second-key where there is none.",
        )
    if counter is not None:
        try:
            check_counter(report.last.counter if report.last else 0, counter)
        except AuditError as error:
            return error
    return None


def _described(checked: _Checked) -> dict[str, object]:
    report = checked.report
    error = report.error
    return {
        "folder": str(checked.folder),
        "origin": report.origin,
        "first_record": report.first,
        "records": report.records,
        "checkpoints": report.checkpoints,
        "checkpoints_second_key": report.seconded,
        "uncovered": report.uncovered,
        "unacknowledged_bytes": report.torn,
        "head": report.head,
        "root": base64.b64encode(report.tree.root()).decode(),
        "counter": report.last.counter if report.last else 0,
        "expected": report.expected,
        "signer": checked.signer,
        "second_signer": checked.second_signer,
        "pinned": checked.pinned,
        "ok": error is None,
        "bad_record": report.bad_record,
        "error": None if error is None else {"code": error.code.name, "message": error.message},
    }


def _sentence(checked: _Checked) -> str:
    report = checked.report
    if report.error is not None:
        return f"{checked.folder}: DOES NOT HOLD: {report.error}"
    parts = [f"{checked.folder}: ok, {report.records} records, {report.checkpoints} checkpoints by {checked.signer}"]
    if report.seconded:
        parts.append(f"{report.seconded} of them by the second key {checked.second_signer} too")
    parts.append(f"head {report.head}")
    if report.first > 1:
        parts.append(f"the records before {report.first} removed by retention")
    if report.expected:
        parts.append("the expected checkpoint is a prefix of it")
    if report.uncovered:
        parts.append(f"the last {report.uncovered} not yet covered by a checkpoint")
    if report.torn:
        parts.append(f"{report.torn} bytes of records that were never acknowledged")
    return ", ".join(parts)


def _prove(arguments: argparse.Namespace) -> int:
    if (arguments.seq is None) == (arguments.older is None):
        raise UsageError(
            BAD_ARGUMENT, "Either SEQ or --from says what to prove.", field="SEQ", hint="Give one of the two."
        )
    (log, *others) = logs_in(arguments.folder)
    if others:
        raise UsageError(BAD_ARGUMENT, "A proof is of one log.", field="FOLDER", hint="Name one of its sub-folders.")
    proof: Inclusion | Consistency
    if arguments.older is None:
        proof = prove_inclusion(log, arguments.seq)
    else:
        proof = prove_consistency(log, _read_checkpoint(arguments.older))
    data = proof.encode()
    if arguments.output is None:
        if arguments.json:
            print_json({"proof": data.decode()})
        else:
            sys.stdout.write(data.decode())
        return 0
    try:
        descriptor = os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise UsageError(
            BAD_ARGUMENT, f"{arguments.output} is there already.", field="--output", hint="Name a file that is not."
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    said = {"output": str(arguments.output), "covered": proof.signed.checkpoint.size}
    if arguments.json:
        print_json(said)
    else:
        sys.stdout.write(printable(f"{said['output']}: under the checkpoint over {said['covered']} records") + "\n")
    return 0


def _verify_proof(arguments: argparse.Namespace, algorithms: Algorithms) -> int:
    proof = decode_proof(_read(arguments.proof, MAX_PROOF))
    keys = Keys(_read_key(arguments.key, FIRST_ALGORITHM, algorithms), algorithms.first)
    origin, size = proof.signed.checkpoint.origin, proof.signed.checkpoint.size
    if isinstance(proof, Consistency):
        if arguments.expect is None:
            raise AuditError(
                BAD_PROOF, "A consistency proof leads from a checkpoint.", hint="Give that one with --expect."
            )
        proof.check(keys, _read_checkpoint(arguments.expect))
        if arguments.json:
            print_json({"ok": True, "origin": origin, "covered": size, "old": proof.old})
        else:
            sys.stdout.write(
                printable(f"ok: the first {proof.old} of the {size} records of {origin} are the expected ones") + "\n"
            )
        return 0
    entry = proof.check(keys)
    if arguments.json:
        print_json({"ok": True, "origin": origin, "covered": size, "record": document(origin, entry)})
    else:
        sys.stdout.write(printable(f"ok: record {entry.seq} of the {size} of {origin}") + f"\n{readable(entry)}\n")
    return 0


def _read_checkpoint(path: Path) -> Signed:
    return decode_checkpoint(_read(path, MAX_NOTE))


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise AuditError(NOT_FOUND, f"The file {path} is missing.") from error
    if len(data) > limit:
        raise AuditError(BAD_NOTE, f"{path} is longer than {limit} bytes.")
    return data


def _read_key(path: Path, algorithm: str, algorithms: Algorithms) -> bytes:
    """A raw public key from a file that holds it in hexadecimal (`signer.pub`), armoured (`NAME.pub`), or as PEM, DER
    or JWK. Raises AuditError(audit.bad_key_file) for anything else, and for a key of another algorithm.
    """
    data = _read(path, MAX_NOTE)
    text = data.strip()
    named = algorithm
    try:
        if text.startswith(_BEGIN) and text.endswith(_END):
            named = FIRST_ALGORITHM
            key = base64.b64decode(b"".join(text[len(_BEGIN) : -len(_END)].split()), validate=True)
        elif _HEXADECIMAL.fullmatch(text):
            key = bytes.fromhex(text.decode("ascii"))
        else:
            named, key = algorithms.import_public(data)
    except (binascii.Error, ValueError, RingfenceError) as error:
        raise _bad_key_file(path, "is not a public key") from error
    if not key:
        raise _bad_key_file(path, "is not a public key")
    if named != algorithm:
        raise _bad_key_file(path, f"holds a key of {named}, not of {algorithm}")
    return key


def _bad_key_file(path: Path, what: str) -> AuditError:
    return AuditError(
        BAD_KEY_FILE,
        f"{path} {what}.",
        hint="Give the signer.pub of a log, the .pub file of `ringfence trust generate`, or what `ringfence keys "
        "export` writes.",
    )
