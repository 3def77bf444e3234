"""Pretrained encoders from folders, tiny but real: BERT with its tokenizer, both halves of a CLIP, a ViT and a ResNet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_alignment import lesions
from test_ctrl_genaug import TINY, again, asked, clips
from test_trainer import Memory
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from models.alignment import Aligned, AlignmentParams, train_aligned
from models.generators.ctrl_genaug import Params, Sampling, build
from models.local_encoders import load_image_encoder, load_text_encoder
from models.trainer import TrainParams
from tasks.checkpoints import load_checkpoint, save_checkpoint

transformers = pytest.importorskip("transformers")
WORDS = ["[PAD]", "[CLS]", "[UNK]", "it", "goes", "right", "down"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("encoders")
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    seen: dict[str, Any] = {**sizes, "image_size": 16, "patch_size": 8}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=12, **sizes)
                           ).save_pretrained(root / "bert")
    clip = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": len(WORDS), "max_position_embeddings": 10, "pad_token_id": 0}, vision_config=seen)
    transformers.CLIPModel(clip).save_pretrained(root / "clip")
    transformers.ViTModel(transformers.ViTConfig(**seen)).save_pretrained(root / "vit")
    small = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    transformers.ResNetModel(small).save_pretrained(root / "resnet")
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    for name in ("bert", "clip"):
        tokenizer.save(str(root / name / "tokenizer.json"))
    scale = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}
    (root / "vit" / "preprocessor_config.json").write_text(json.dumps(scale))
    return {path.name: path for path in root.iterdir()}


@pytest.mark.parametrize("name", ["bert", "clip"])
def test_texts_are_read_as_the_library_reads_them(folders: dict[str, Path], name: str) -> None:
    encoder = load_text_encoder(folders[name]).eval()
    tokens = encoder(["it goes down", "right"])
    model = transformers.AutoModel.from_pretrained(folders[name])
    model = getattr(model, "text_model", model).eval()
    whole = model(input_ids=torch.tensor([[1, 3, 4, 6]]), attention_mask=torch.ones(1, 4)).last_hidden_state[0]
    torch.testing.assert_close(tokens[0, :4], whole, atol=1e-5, rtol=1e-4)
    assert tokens.shape[2] == encoder.width == 16 and not tokens[0, 4:].any() and not tokens[1, 2:].any()
    torch.testing.assert_close(encoder.whole(tokens)[0], whole.mean(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "tokens"), [("clip", 5), ("vit", 5), ("resnet", 16)])
def test_frames_are_scaled_and_resized_as_the_model_wants_them(folders: dict[str, Path], name: str, tokens: int) -> None:
    encoder = load_image_encoder(folders[name]).eval()
    frames = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = encoder(frames)
    assert found.shape[::2] == (2, 16) and encoder.width == 16
    model = transformers.AutoModel.from_pretrained(folders[name])
    model = getattr(model, "vision_model", model).eval()
    seen = (frames.expand(-1, 3, -1, -1) + 1) / 2
    if name != "resnet":
        seen = torch.nn.functional.interpolate(seen, (16, 16), mode="bilinear", antialias=True)
        assert found.shape[1] == tokens
    mean, std = ([0.4, 0.5, 0.6], [0.2] * 3) if name == "vit" else ([0.5] * 3, [0.5] * 3)
    seen = (seen - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    expected = model(pixel_values=seen).last_hidden_state
    expected = expected.flatten(2).transpose(1, 2) if expected.ndim == 4 else expected
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_folder_without_its_parts_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_image_encoder(tmp_path)
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_text_encoder(folders["vit"])


def test_a_generator_with_pretrained_encoders_comes_back_from_its_checkpoint(folders: dict[str, Path], tmp_path: Path) -> None:
    """The folders are not needed again, and the clips are the same."""
    alignment = {**TINY["alignment"], "text_folder": folders["bert"], "image_folder": folders["vit"]}
    made = build(Params.model_validate({**TINY, "alignment": alignment})).fit(clips(), Memory(), seed=0)
    save_checkpoint(tmp_path, made, fingerprint="f", trained_on={})
    loaded = load_checkpoint(tmp_path)
    first, second = (again(one).sample(asked([0, 1]), [1, 2], Sampling(steps=2)).frames for one in (made, loaded))
    torch.testing.assert_close(first, second)
    begun = load_text_encoder(folders["bert"]).state_dict()
    assert any(not torch.equal(value, begun[key]) for key, value in made.nets["aligned"].text.state_dict().items())


def test_pretrained_encoders_are_aligned_with_the_data(folders: dict[str, Path]) -> None:
    """As the paper fine-tunes CLIP: after training, a frame is nearer to its own text than before."""
    from models.clip import UNKNOWN, ClipBatch, Condition, MemoryClips

    frames, _ = lesions(64, torch.Generator().manual_seed(0))
    texts = tuple("it goes right" if row % 2 else "it goes down" for row in range(64))
    frames[1::2] += 0.8
    ids = tuple(map(str, range(64)))
    masks = torch.full((64, 1, 24, 24), UNKNOWN, dtype=torch.uint8)
    source = MemoryClips(ClipBatch(ids, frames.clamp(-1, 1)[:, None], Condition(ids, masks, ("",) * 64, texts)))
    params = AlignmentParams(width=16, text_folder=folders["clip"], image_folder=folders["clip"],
                             train=TrainParams(steps=60, batch_size=16, learning_rate=2e-3))
    net, losses = train_aligned(params, source, Memory(), 0)
    assert isinstance(net, Aligned) and sum(losses[-10:]) < 0.9 * sum(losses[:10])
    said = net(frames.clamp(-1, 1), ["it goes down", "it goes right"]).argmax(1)
    assert (said == torch.arange(64) % 2).float().mean() > 0.9
