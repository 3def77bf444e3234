"""Words, the shape of tokens, and that aligned encoders find each other's partner in clips they never saw."""

from __future__ import annotations

from pathlib import Path

import torch
from test_trainer import Memory
from torch import Tensor

from models.alignment import UNSEEN, Aligned, TextEncoder, alignment_loss, vocabulary, words
from models.seeding import generator
from models.trainer import TrainParams, fit

PLACES = ("left", "right")
SHADES = ("bright", "dark")
TEXTS = [f"{shade} lesion on the {place}" for shade in SHADES for place in PLACES]


def lesions(number: int, rng: torch.Generator) -> tuple[Tensor, list[str]]:
    """Noisy frames with a bright or dark disc on one side."""
    kind = torch.randint(0, 4, (number,), generator=rng)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    centre = torch.stack([8 + 8 * torch.rand(number, generator=rng), 6 + 12 * (kind % 2)], 1)
    disc = ((y - centre[:, 0, None, None]) ** 2 + (x - centre[:, 1, None, None]) ** 2 < 16).float()
    frames = disc * (0.6 - 1.2 * (kind // 2))[:, None, None] + 0.2 * torch.randn(number, 24, 24, generator=rng)
    return frames[:, None].clamp(-1, 1), [TEXTS[one] for one in kind.tolist()]


def test_words_keep_hyphens_and_drop_punctuation() -> None:
    assert words("B-lines, Consolidation (small); probe_2") == ["b-lines", "consolidation", "small", "probe", "2"]
    assert vocabulary(["b a", "a C"]) == ["a", "b", "c"]


def test_texts_become_numbers_and_tokens() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(vocabulary(TEXTS), width=16, longest=4).eval()
    numbers, beyond = encoder.numbers(["", "dark spot", "bright lesion on the left"])
    assert numbers[0].tolist() == [0] * 5 and beyond.sum(1).tolist() == [4, 2, 0]
    assert numbers[1, 2] == UNSEEN and UNSEEN not in numbers[2].tolist()
    with torch.no_grad():
        tokens = encoder(["", "dark spot"])
        assert tokens.shape == (2, 5, 16) and not tokens[0, 1:].any() and tokens[1, :3].all()
        # what lies beyond a text's end has no say in it
        torch.testing.assert_close(encoder(["dark spot"]), tokens[1:], rtol=1e-5, atol=1e-6)


def test_aligned_encoders_find_the_text_of_new_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Aligned(vocabulary(TEXTS), width=32, grid=4, layers=1)
    params = TrainParams(steps=150, batch_size=16, learning_rate=3e-3, cosine=True, ema_decay=0.9)
    losses = fit(net, alignment_loss(lambda rng: lesions(16, rng)), params, phase="alignment", seed=0, hook=Memory())
    assert losses[-1] < losses[0]
    frames, texts = lesions(80, generator(9999))
    with torch.no_grad():
        chosen = net(frames, TEXTS).argmax(1)
    assert sum(TEXTS[one] == text for one, text in zip(chosen.tolist(), texts, strict=True)) > 72
    net.save_pretrained(tmp_path)
    again = Aligned.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(frames, TEXTS), net(frames, TEXTS))


def test_equal_texts_are_no_negatives() -> None:
    """If all pairs of a batch are the same, the best possible loss is that of guessing evenly among them."""
    net = Aligned(vocabulary(TEXTS), width=16)
    frames, _ = lesions(6, generator(0))
    value = alignment_loss(lambda rng: (frames[:1].expand(6, -1, -1, -1), [TEXTS[0]] * 6))(net, generator(0))
    torch.testing.assert_close(value, torch.tensor(6.0).log())
