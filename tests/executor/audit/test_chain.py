from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.audit.chain import (
    EMPTY_ROOT,
    Tree,
    consistency_holds,
    consistency_proof,
    inclusion_holds,
    inclusion_proof,
    leaf_hash,
    tree_root,
)

# Leaves and roots of the certificate-transparency reference tests for RFC 6962.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def hashes(count):
    return [leaf_hash(b"%d" % number) for number in range(count)]


def grown(count):
    tree = Tree()
    for number in range(count):
        tree.append(b"%d" % number)
    return tree


def test_roots_are_those_of_the_reference():
    tree = Tree()
    roots = []
    for leaf in LEAVES:
        tree.append(leaf)
        roots.append(tree.root().hex())

    assert roots == ROOTS


def test_the_empty_tree_has_the_hash_of_nothing():
    assert Tree().root() == tree_root([]) == EMPTY_ROOT


@given(st.integers(0, 300))
def test_growing_gives_the_root_of_the_definition(count):
    assert grown(count).root() == tree_root(hashes(count))


@given(st.integers(1, 130), st.data())
def test_an_inclusion_proof_holds_for_its_leaf_and_no_other(count, data):
    leaves = hashes(count)
    index = data.draw(st.integers(0, count - 1))
    other = data.draw(st.integers(0, count - 1))
    root, proof = tree_root(leaves), inclusion_proof(leaves, index)

    assert inclusion_holds(leaves[index], proof, index=index, size=count, root=root)
    assert inclusion_holds(leaves[other], proof, index=index, size=count, root=root) == (index == other)
    assert not inclusion_holds(leaves[index], (*proof, root), index=index, size=count, root=root)
    assert not inclusion_holds(leaves[index], proof, index=count, size=count, root=root)


@given(st.integers(1, 130), st.data())
def test_a_consistency_proof_holds_for_its_prefix_and_no_other(count, data):
    leaves = hashes(count)
    earlier = data.draw(st.integers(1, count))
    root, old, proof = tree_root(leaves), tree_root(leaves[:earlier]), consistency_proof(leaves, earlier)

    def holds(proof, old, new):
        return consistency_holds(proof, earlier=earlier, later=count, earlier_root=old, later_root=new)

    assert holds(proof, old, root)
    assert not holds(proof, b"\x00" * 32, root)
    assert not holds(proof, old, b"\x00" * 32)
    assert not holds((*proof, root), old, root)


def test_a_rewritten_prefix_has_no_consistency_proof():
    leaves = hashes(9)
    rewritten = [leaf_hash(b"other"), *leaves[1:]]
    proof = consistency_proof(rewritten, 5)

    assert not consistency_holds(
        proof, earlier=5, later=9, earlier_root=tree_root(leaves[:5]), later_root=tree_root(rewritten)
    )


def test_proofs_for_what_is_not_there_are_refused():
    with pytest.raises(IndexError):
        inclusion_proof(hashes(3), 3)
    with pytest.raises(IndexError):
        consistency_proof(hashes(3), 4)
    assert not consistency_holds((), earlier=0, later=3, earlier_root=EMPTY_ROOT, later_root=EMPTY_ROOT)
    assert not consistency_holds((), earlier=3, later=5, earlier_root=EMPTY_ROOT, later_root=EMPTY_ROOT)
