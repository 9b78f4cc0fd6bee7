"""The Merkle root of a run: one digest that stands for every receipt, so that none can change, come or go unseen.

The tree is that of RFC 6962: leaves and nodes are hashed with different first bytes, so that no node passes for a leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

RECEIPTS_ROOT: Final = "receipts_root"  # tag of a pipeline run


def root(leaves: Sequence[bytes]) -> str:
    """Return the Merkle tree hash of the leaves in hex. Source: RFC 6962, section 2.1."""
    return _tree(leaves).hex()


def receipts_root(receipts: Mapping[str, bytes]) -> str:
    """Return the Merkle root of a run from stage -> bytes of its receipt; a leaf is `stage<NUL>bytes`, sorted by stage."""
    return root([stage.encode() + b"\0" + receipts[stage] for stage in sorted(receipts)])


def _tree(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    # The left part is the largest power of two below the number of leaves.
    left = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _tree(leaves[:left]) + _tree(leaves[left:])).digest()
