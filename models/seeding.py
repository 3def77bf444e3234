"""Seeds by content: a clip's noise depends on what it is, never on its shard, batch or neighbours."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: str | int) -> int:
    """63-bit seed from any words, e.g. `derive_seed(run_seed, "sfvd", condition_id, draw)`.

    blake2b over the length-prefixed parts, so ("ab", "c") and ("a", "bc") differ. The shard is deliberately not
    among the callers' parts: re-sharding a plan gives the same clips.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        encoded = str(part).encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest(), "big") >> 1


def generator(seed: int) -> torch.Generator:
    """A CPU generator: its numbers are the same on every machine, whatever device they are moved to."""
    return torch.Generator("cpu").manual_seed(seed)
