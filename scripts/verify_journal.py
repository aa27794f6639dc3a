#!/usr/bin/env python3
"""Verify a remit journal, and its receipt if given, with nothing of remit but Python and `cryptography`.

Usage: verify_journal.py JOURNAL [RECEIPT] [--key VERIFIER-KEY]. Exit status 0: it holds; 1: it does not, and
the first bad line is named; 2: wrong usage. Without a receipt a journal cut back to an earlier closing
record, and without a key one that was replaced whole, cannot be told from the real one.
"""

import argparse
import base64
import hashlib
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def require(truth: object, complaint: str) -> None:
    """Leave with a complaint unless it is true."""
    if not truth:
        sys.exit(f"does not hold: {complaint}")


def signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether the key made the signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def note_holds(text: str, public: bytes, size: int, root: bytes) -> bool:
    """Check a C2SP checkpoint: it says this size and root, and the key signed it."""
    body, _, signatures = text.partition("\n\n")
    origin, said_size, said_root = body.split("\n")
    name, blob = signatures.split(" ")[1], base64.b64decode(signatures.split(" ")[2])
    key_id = hashlib.sha256(f"{name}\n\x01".encode() + public).digest()[:4]
    same = (said_size, said_root) == (str(size), base64.b64encode(root).decode()) and origin == name
    return same and blob[:4] == key_id and signed(public, f"{body}\n".encode(), blob[4:])


def root_of(peaks: list[bytes]) -> bytes:
    """Fold the roots of complete subtrees into the RFC 6962 root."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = hashlib.sha256(b"\x01" + peak + root).digest()
    return root


def check_journal(path: str, public: bytes | None) -> tuple[bytes, int, bytes, bool]:
    """Walk the chain; return the key, how many records, their root, and whether the last closes the run."""
    previous, peaks, size, kind = "0" * 64, [], 0, ""
    with open(path, "rb") as journal:
        for size, line in enumerate(journal, start=1):
            try:
                record = json.loads(line)
                seq, prev, kind, body = (record[name] for name in ("seq", "prev", "kind", "body"))
                if size == 1:
                    own = base64.b64decode(body["journal"]["key"].split("+", 2)[2])[1:]
                    require(public in (None, own), "line 1: written under another key")
                    public = own
                good = kind != "checkpoint" or note_holds(body["text"], public, size - 1, root_of(peaks))
            except (ValueError, KeyError, IndexError, TypeError) as error:
                sys.exit(f"does not hold: line {size}: not a record: {error!r}")
            require(line.endswith(b"\n"), f"line {size}: unfinished")
            require(seq == size - 1, f"line {size}: says it is record {seq}")
            require(
                prev == previous,
                f"line {size}: does not follow the line before it",
            )
            require(good, f"line {size}: the checkpoint does not fit the records before it")
            previous = hashlib.sha256(line[:-1]).hexdigest()
            node, full = hashlib.sha256(b"\x00" + line[:-1]).digest(), size - 1
            while full & 1:
                node, full = hashlib.sha256(b"\x01" + peaks.pop() + node).digest(), full >> 1
            peaks.append(node)
    require(size and public, "the journal is empty")
    return public, size, root_of(peaks), kind == "run.closed"


def check_receipt(path: str, public: bytes, size: int, root: bytes) -> str:
    """Check that the envelope is signed and its checkpoint is over just these records; return the verdict."""
    with open(path, "rb") as file:
        envelope = json.load(file)
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    require(signed(public, message, signature), "receipt: not signed by the journal's key")
    predicate = json.loads(payload)["predicate"]
    held = predicate["journal"]["size"]
    require(
        held == size,
        f"line {min(held, size) + 1}: the receipt is over {held} lines, here are {size}",
    )
    require(
        note_holds(predicate["journal"]["checkpoint"], public, size, root),
        "receipt: records differ from its own",
    )
    return str(predicate["verdict"]["outcome"])


def main() -> None:
    """Read the command line and say what holds."""
    parser = argparse.ArgumentParser(description="Verify a remit journal without remit.")
    parser.add_argument("journal")
    parser.add_argument("receipt", nargs="?")
    parser.add_argument("--key", help="verifier key (name+hash+base64), as in key.pub of the state directory")
    options = parser.parse_args()
    pinned = base64.b64decode(options.key.strip().split("+", 2)[2])[1:] if options.key else None
    public, size, root, closed = check_journal(options.journal, pinned)
    require(closed, f"line {size}: not a closing record; the journal is incomplete")
    verdict = check_receipt(options.receipt, public, size, root) if options.receipt else None
    print(f"holds: {size} records, root {root.hex()}" + (f", verdict {verdict}" if verdict else ""))


if __name__ == "__main__":
    main()
