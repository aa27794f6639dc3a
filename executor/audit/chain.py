"""Hashes that bind records to each other: the previous-line chain and the Merkle tree of RFC 6962.

A tree over n records is held as the roots of its complete subtrees, largest first, so that appending and
reading the root cost O(log n) and nothing is kept per record.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

NO_PREVIOUS = "0" * 64
EMPTY_ROOT = sha256(b"").digest()


def line_hash(line: bytes) -> str:
    """Return what the next record names as ``prev``: the hex SHA-256 of a line without its newline."""
    return sha256(line).hexdigest()


def leaf_hash(line: bytes) -> bytes:
    """Hash one record as a leaf (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into one (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A Merkle tree that only grows, knowing no more than its complete subtrees."""

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, line: bytes) -> None:
        """Add one record as the next leaf."""
        peaks = self._peaks
        node = sha256(b"\x00" + line).digest()
        full = self.size
        while full & 1:
            node = sha256(b"\x01" + peaks.pop() + node).digest()
            full >>= 1
        peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes, straight from the recursive definition."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = _split(len(leaves))
    return node_hash(tree_root(leaves[:split]), tree_root(leaves[split:]))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the audit path of one leaf (RFC 6962 section 2.1.1), from the leaf up.

    Raises:
        IndexError: There is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a tree of {len(leaves)}")
    if len(leaves) == 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*inclusion_proof(leaves[:split], index), tree_root(leaves[split:]))
    return (*inclusion_proof(leaves[split:], index - split), tree_root(leaves[:split]))


def consistency_proof(leaves: Sequence[bytes], earlier: int) -> tuple[bytes, ...]:
    """Return the proof that the first ``earlier`` leaves are a prefix of all (RFC 6962 section 2.1.2).

    Raises:
        IndexError: ``earlier`` is not between 1 and the number of leaves.
    """
    if not 1 <= earlier <= len(leaves):
        raise IndexError(f"no tree of {earlier} within one of {len(leaves)}")
    return _subproof(leaves, earlier, whole=True)


def inclusion_holds(leaf: bytes, proof: Sequence[bytes], *, index: int, size: int, root: bytes) -> bool:
    """Tell whether a leaf is at ``index`` of a tree of ``size`` leaves (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def consistency_holds(
    proof: Sequence[bytes], *, earlier: int, later: int, earlier_root: bytes, later_root: bytes
) -> bool:
    """Tell whether a tree of ``earlier`` leaves is a prefix of a later one (RFC 9162 section 2.1.4.2)."""
    if not 1 <= earlier <= later:
        return False
    if earlier == later:
        return not proof and earlier_root == later_root
    path = list(proof) if earlier & (earlier - 1) else [earlier_root, *proof]
    if not path:
        return False
    position, last = earlier - 1, later - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, node)
        position, last = position >> 1, last >> 1
    return last == 0 and old == earlier_root and new == later_root


def _subproof(leaves: Sequence[bytes], earlier: int, *, whole: bool) -> tuple[bytes, ...]:
    if earlier == len(leaves):
        return () if whole else (tree_root(leaves),)
    split = _split(len(leaves))
    if earlier <= split:
        return (*_subproof(leaves[:split], earlier, whole=whole), tree_root(leaves[split:]))
    return (*_subproof(leaves[split:], earlier - split, whole=False), tree_root(leaves[:split]))


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1
