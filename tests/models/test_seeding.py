"""Seeds are pinned numbers: a change of them changes every clip ever planned."""

from __future__ import annotations

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.seeding import derive_seed, generator

Part = st.one_of(st.text(max_size=8), st.integers(-(2**40), 2**40))


def test_the_number_is_the_documented_hash() -> None:
    encoded = b"".join(len(part).to_bytes(8, "big") + part for part in (b"0", b"sfvd", b"c\xc3\xa9"))
    assert derive_seed(0, "sfvd", "cé") == int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big") >> 1
    assert derive_seed(0, "sfvd", "condition", 3) == 1906405085835544794


@given(st.lists(Part, max_size=4), st.lists(Part, max_size=4))
def test_different_words_differ_and_equal_ones_agree(first: list[str | int], second: list[str | int]) -> None:
    assert (derive_seed(*first) == derive_seed(*second)) == ([str(part) for part in first] == [str(part) for part in second])


@given(st.lists(Part, max_size=4))
def test_every_seed_starts_a_generator(parts: list[str | int]) -> None:
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    assert torch.equal(torch.rand(2, generator=generator(seed)), torch.rand(2, generator=generator(seed)))


def test_boundaries_count() -> None:
    assert derive_seed("ab", "c") != derive_seed("a", "bc")
    assert derive_seed("ab") != derive_seed("ab", "")


def test_generators_leave_the_global_state_alone() -> None:
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    torch.rand(100, generator=generator(1))
    assert torch.equal(torch.rand(1), want)
