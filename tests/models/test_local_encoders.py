"""Pretrained encoders from folders, tiny but real: BERT with its tokenizer, a CLIP and its halves, a ViT and a ResNet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_alignment import lesions
from test_ctrl_genaug import TINY, again, asked, clips
from test_trainer import Memory
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from models.alignment import Aligned, AlignmentParams, train_aligned
from models.features import clip as clip_features
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
        text_config={**sizes, "vocab_size": len(WORDS), "max_position_embeddings": 10, "pad_token_id": 0},
        vision_config={**seen, "projection_dim": 12}, projection_dim=12)
    transformers.CLIPModel(clip).save_pretrained(root / "clip")
    transformers.CLIPVisionModelWithProjection.from_pretrained(root / "clip").save_pretrained(root / "tower")
    transformers.ViTModel(transformers.ViTConfig(**seen)).save_pretrained(root / "vit")
    small = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    transformers.ResNetModel(small).save_pretrained(root / "resnet")
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    for name in ("bert", "clip"):
        tokenizer.save(str(root / name / "tokenizer.json"))
    scale = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}
    for name in ("vit", "tower"):
        (root / name / "preprocessor_config.json").write_text(json.dumps(scale))
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


def test_clip_sees_frames_as_cmmd_shows_them(folders: dict[str, Path]) -> None:
    """By Pillow's bicubic filter, which is that of CMMD's authors' library; the whole frame, not its middle."""
    look = clip_features.build(clip_features.Params(weights=folders["tower"]), None)
    frames = torch.rand(2, 3, 1, 40, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    seen = [np.asarray(Image.fromarray(one.numpy()).resize((16, 16), Image.Resampling.BICUBIC))
            for one in (frames.flatten(0, 2) + 1) / 2]
    pixels = torch.from_numpy(np.array(seen))[:, None].expand(-1, 3, -1, -1)
    pixels = (pixels - torch.tensor([0.4, 0.5, 0.6]).view(-1, 1, 1)) / 0.2
    model = transformers.CLIPModel.from_pretrained(folders["clip"])
    with torch.no_grad():
        wanted = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    wanted = (wanted / wanted.norm(dim=1, keepdim=True)).unflatten(0, (2, 3))
    torch.testing.assert_close(look(frames), wanted, atol=1e-4, rtol=1e-3)
    assert look(frames).shape == (2, 3, 12) and float(wanted.flatten(0, 1).std(0).min()) > 1e-2
    assert look.name == ("clip (tower, ViT of width 16, patches of 8 px; 16 px bicubic, antialiased, its own normalisation; "
                         "unit length)")


def test_a_whole_clip_and_its_image_half_see_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    whole = shutil.copytree(folders["clip"], tmp_path / "whole")
    shutil.copy(folders["tower"] / "preprocessor_config.json", whole)
    frames = torch.rand(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    first, second = (clip_features.ClipFeatures(folder)(frames) for folder in (whole, folders["tower"]))
    torch.testing.assert_close(first, second)


def test_only_cmmd_s_own_clip_earns_its_name(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert clip_features.ClipFeatures(folders["tower"]).earned == {}
    own = {"hidden_size": 16, "num_hidden_layers": 1, "patch_size": 8, "image_size": 16, "projection_dim": 12}
    for name, value in own.items():
        monkeypatch.setattr(clip_features, "CMMD", {**own, name: value + 1})
        assert clip_features.ClipFeatures(folders["tower"]).earned == {}, name
    monkeypatch.setattr(clip_features, "CMMD", own)
    assert clip_features.ClipFeatures(folders["tower"]).earned == {"cmmd": "CMMD, mean over the clip's frames"}


def test_a_folder_that_is_no_clip_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for folder, why in ((folders["vit"], "holds a model of type vit; give one of type clip or clip_vision_model"),
                        (folders["clip"], r"has no image_mean and image_std in preprocessor_config\.json"),
                        (tmp_path, r"holds no config\.json")):
        with pytest.raises(ValueError, match=why):
            clip_features.ClipFeatures(folder)
    blind = tmp_path / "blind"
    transformers.CLIPVisionModel.from_pretrained(folders["tower"]).save_pretrained(blind)
    shutil.copy(folders["tower"] / "preprocessor_config.json", blind)
    with pytest.raises(ValueError, match=r"has no weights for visual_projection\.weight"):
        clip_features.ClipFeatures(blind)
