"""Checks an audit log of Ringfence without Ringfence: python verify_audit_log.py FOLDER [PUBLIC-KEY-FILE]

Follows docs/audit-log.md: chain, Merkle tree, signed checkpoints. Exits with 1 where one of them does not hold.
"""

import base64
import hashlib
import json
import re
import sys
from functools import reduce
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

LABEL = b"COMPSIG-MLDSA65-Ed25519-SHA512"
NOTE = re.compile(r"(ringfence\.audit/.+\n(\d+)\n(.+)\nchain ([0-9a-f]{64})\n(?:.+\n)*)\n((?:— .+\n)+)\n")


def need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


class Log:
    """How far the log holds: its name, the last leaf hash, and the roots of the full subtrees over its records."""

    def __init__(self, start: dict) -> None:
        self.origin, self.chain, self.size, self.peaks = start["origin"], start["prev"], 0, []
        for peak in start["peaks"]:
            self.add(peak, (start["first"] - 1 - self.size).bit_length() - 1)

    def add(self, node: str, level: int = 0) -> None:
        found, before = bytes.fromhex(node), self.size
        self.size += 1 << level
        while before >> level & 1:
            found, level = sha256(b"\1", self.peaks.pop(), found), level + 1
        self.peaks.append(found)

    def root(self) -> bytes:
        return reduce(lambda right, left: sha256(b"\1", left, right), self.peaks[::-1]) if self.peaks else sha256()


def check_signature(public: bytes, text: bytes, lines: list[str]) -> None:
    """One of the note's signatures must be the log's: ML-DSA-65 and Ed25519 over the same prepared message."""
    key_id = sha256(text.split(b"\n")[0], b"\n\xff", b"ringfence ML-DSA-65-Ed25519", public)[:4]
    blobs = [base64.b64decode(line.split(" ")[2], validate=True) for line in lines]
    signature = next((blob[4:] for blob in blobs if blob[:4] == key_id), b"")
    message = b"CompositeAlgorithmSignatures2025" + LABEL + b"\0" + hashlib.sha512(text).digest()
    MLDSA65PublicKey.from_public_bytes(public[:1952]).verify(signature[:3309], message, LABEL)
    Ed25519PublicKey.from_public_bytes(public[1952:]).verify(signature[3309:], message)


def check(folder: Path, public: bytes) -> str:
    points = []  # what each checkpoint says of the log: origin, size, root, chain
    for path in sorted(folder.glob("checkpoints-*.note")):
        for text, size, root, chain, signatures in NOTE.findall(path.read_text("utf-8", errors="replace")):
            check_signature(public, text.encode(), signatures.splitlines())
            points.append((text.split("\n")[0], int(size), base64.b64decode(root), chain))
    gone = [path for path in folder.glob("compacted-*") if not (folder / f"records{path.name[9:]}").exists()]
    log, covered = None, 0
    for path in sorted([*gone, *folder.glob("records-*.jsonl")], key=lambda path: path.name[-26:]):
        header, *lines, _torn = path.read_bytes().split(b"\n")
        start = Log(json.loads(header))
        log = log or start
        need(vars(log) == vars(start), f"{path.name} does not follow record {log.size}")
        for line in lines:
            place = rb'\{"v":2,"seq":%d,"base":\d+,"prev":"%s",' % (log.size + 1, log.chain.encode())
            if path in gone:
                part = json.loads(line)
                for node in part["nodes"]:
                    left = (part["to"] - log.size).bit_length() - 1
                    log.add(node, min(left, (log.size & -log.size).bit_length() - 1) if log.size else left)
                log.chain = part["chain"]
                need(log.size == part["to"], f"{path.name} is not whole")
            elif re.match(place, line):
                log.chain = sha256(b"\0", line).hex()
                log.add(log.chain)
            else:
                need(all(point[1] <= log.size for point in points), f"record {log.size + 1} does not hold")
                return f"{log.size} records hold, {covered} are signed; the rest was not acknowledged, or was changed"
            while points and points[0][1] == log.size:
                covered, said = log.size, (log.origin, log.size, log.root(), log.chain)
                need(points.pop(0) == said, f"a record up to {covered} was changed after it was signed")
    need(bool(log) and not points, f"the end of the log was cut off after record {log.size if log else 0}")
    return f"{log.size} records hold, {covered} are signed"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        print(check(place, bytes.fromhex(Path(sys.argv[2] if sys.argv[2:] else place / "signer.pub").read_text())))
    except (InvalidSignature, ValueError, LookupError) as error:
        sys.exit(f"DOES NOT HOLD: {error!s}" if str(error) else "DOES NOT HOLD: a checkpoint is not signed by this key")
