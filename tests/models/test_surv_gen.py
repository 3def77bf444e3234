"""SurV-Gen, tiny but whole: it starts as its image model, speaks diffusers' formats, resumes, and its clips move."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from test_ctrl_genaug import FRAMES, SIDE, asked, clips
from test_trainer import KilledError, Memory

from models.generators import Checkpoint
from models.generators.surv_gen import Params, Sampling, SurVGen, build
from models.nets.image_unet import ImageParams, image_unet
from models.nets.motion_unet import LabelPlace, MotionUNet, framewise, new_adapter, new_labels
from models.seeding import generator
from models.trainer import TrainParams, TrainState
from tasks.checkpoints import load_checkpoint, save_checkpoint

STEPS = {"steps": 4, "batch_size": 2, "save_every": 2}
TINY: dict[str, Any] = {
    "codec": {"channels": [8, 8], "train": STEPS}, "alignment": {"width": 16, "grid": 2, "train": STEPS},
    "image": {"channels": [16, 16], "head_width": 8, "train": STEPS}, "motion": {"heads": 2, "longest": 8, "train": STEPS},
}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """Trained for a few steps, then shaken, so that the zero-initialised parts speak too."""
    made = build(Params.model_validate(TINY)).fit(clips(), Memory(), seed=0)
    torch.manual_seed(0)
    for name in ("motion", "labels"):
        for parameter in made.nets[name].parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def again(checkpoint: Checkpoint) -> SurVGen:
    return build(Params.model_validate(checkpoint.params), checkpoint)


@pytest.mark.parametrize("place", ["time", "modules"])
@pytest.mark.parametrize("mid_block", [False, True])
def test_the_video_model_starts_exactly_as_the_image_model(mid_block: bool, place: LabelPlace) -> None:
    torch.manual_seed(0)
    unet = image_unet(ImageParams(channels=[16, 32], head_width=8, layers=2, train=TrainParams(steps=1, batch_size=1)), 4, 12)
    adapter = new_adapter(unet, 2, 16, mid_block)
    assert any("mid_block" in name for name in adapter.state_dict()) == mid_block
    video = MotionUNet(unet, adapter, new_labels(unet, adapter, 3, place))
    x, t, text = torch.randn(2, 5, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 6, 12)
    with torch.no_grad():
        alone = framewise(unet, x, t, text)
        torch.testing.assert_close(video(x, t, text, torch.tensor([2, -1])), alone, atol=1e-5, rtol=1e-5)
        each = torch.stack([unet(x[:, frame], t, text).sample for frame in range(5)], 1)
    torch.testing.assert_close(alone, each, atol=1e-5, rtol=1e-5)
    trained = {name for name, parameter in video.named_parameters() if parameter.requires_grad}
    table = "net.time_embedding.cond_proj.weight" if place == "time" else "labels.table.weight"
    assert table in trained and all("motion_modules" in name for name in trained - {table})
    for name, parameter in video.named_parameters():  # now the class counts, in either place; no class still adds nothing
        if name == table or name.endswith("proj_out.weight"):
            torch.nn.init.normal_(parameter)
    with torch.no_grad():
        first, second, none = (video(x, t, text, torch.tensor(labels)) for labels in ([2, -1], [-1, -1], [-1, 2]))
    assert not torch.allclose(first[0], second[0], atol=1e-3) and torch.allclose(first[1], second[1], atol=1e-5)
    assert not torch.allclose(none[1], second[1], atol=1e-3)


@pytest.mark.parametrize("place", ["time", "modules"])
def test_only_what_is_new_is_trained_in_stage_two(place: LabelPlace) -> None:
    motion = {**TINY["motion"], "label_place": place}
    made = build(Params.model_validate({**TINY, "motion": motion})).fit(clips(), Memory(), seed=0)
    assert list(made.losses) == ["vae", "alignment", "image", "motion"]
    fresh = MotionUNet(made.nets["unet"], new_adapter(made.nets["unet"], 2, 8, False), made.nets["labels"])
    spatial = {name: value for name, value in fresh.net.state_dict().items() if "motion" not in name and "cond" not in name}
    image = made.nets["unet"].state_dict()
    assert all(torch.equal(value, image[name]) for name, value in spatial.items())
    assert made.nets["labels"].table.weight.abs().max() > 0
    assert any(value.abs().max() > 0 for name, value in made.nets["motion"].state_dict().items() if "proj_out" in name)


def test_a_killed_training_ends_with_the_same_weights() -> None:
    class Deadly(Memory):
        """Dies in the motion phase, after its first save."""

        def save(self, phase: str, state: TrainState) -> None:
            super().save(phase, state)
            if len(self.steps) == 7:
                raise KilledError

    params = Params.model_validate(TINY)
    whole, states = build(params).fit(clips(), Memory(), seed=3), Deadly()
    with pytest.raises(KilledError):
        build(params).fit(clips(), states, seed=3)
    resumed = build(params).fit(clips(), states, seed=3)
    assert resumed.losses == whole.losses
    for name, net in whole.nets.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, resumed.nets[name].state_dict()[key]), (name, key)


def test_a_clip_is_a_function_of_its_own_condition_and_seed(checkpoint: Checkpoint) -> None:
    sampling = Sampling(steps=2)
    together = again(checkpoint).sample(asked([0, 1, 2]), [5, 6, 7], sampling).frames
    other = again(checkpoint).sample(asked([1, 3]), [6, 8], sampling).frames
    torch.testing.assert_close(together[1], other[0], atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[2], atol=1e-3)
    assert together.shape == (3, FRAMES, 1, SIDE, SIDE) and together.abs().max() <= 1


@pytest.mark.parametrize("what", ["label", "text"])
def test_each_condition_changes_the_clip(checkpoint: Checkpoint, what: str) -> None:
    made = again(checkpoint)
    every, none = made.sample(asked([0, 1]), [1, 2], Sampling(steps=2)), Sampling(steps=2, use=[])
    without = made.sample(asked([0, 1]), [1, 2], Sampling(steps=2, use=["text" if what == "label" else "label"]))
    assert not torch.allclose(every.frames, without.frames, atol=1e-4)
    torch.testing.assert_close(made.sample(asked([0, 1]), [1, 2], none).frames, made.sample(asked([3, 4]), [1, 2], none).frames)


def test_without_motion_modules_frames_are_alone(checkpoint: Checkpoint) -> None:
    made = again(checkpoint)
    with_them, alone = (made.sample(asked([0]), [1], Sampling(steps=3, temporal=temporal)).frames for temporal in (True, False))
    assert not torch.allclose(with_them, alone, atol=1e-3)


def test_a_plain_diffusers_pipeline_samples_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """From the checkpoint's folder, by diffusers alone: its loaders, its AnimateDiff pipeline, its guidance."""
    save_checkpoint(tmp_path, checkpoint, fingerprint="f", trained_on={})
    transformers = pytest.importorskip("transformers")
    idle = transformers.CLIPTextModel(transformers.CLIPTextConfig(vocab_size=8, hidden_size=16, intermediate_size=16,
                                                                  num_hidden_layers=1, num_attention_heads=2))
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
                              clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=False)
    pipeline = AnimateDiffPipeline(AutoencoderKL.from_pretrained(tmp_path / "vae"), idle, None,
                                   UNet2DConditionModel.from_pretrained(tmp_path / "unet"),
                                   MotionAdapter.from_pretrained(tmp_path / "motion"), scheduler)
    made, condition = again(load_checkpoint(tmp_path)), asked([1])
    text = checkpoint.nets["text"]
    noise = torch.randn(FRAMES, 4, SIDE // 2, SIDE // 2, generator=generator(9))
    with torch.no_grad():
        found = pipeline(prompt_embeds=text(condition.texts), negative_prompt_embeds=text([""]), num_frames=FRAMES,
                         height=SIDE, width=SIDE, num_inference_steps=5, guidance_scale=3.0, output_type="latent",
                         latents=noise.transpose(0, 1)[None]).frames
    own = made.latents(condition, [9], Sampling(solver="ddim", steps=5, guidance=3.0, use=["text"]))
    torch.testing.assert_close(own, found.transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_an_adapter_of_diffusers_form_loads_and_is_the_start(tmp_path: Path) -> None:
    """Written by diffusers' own `save_motion_modules`; a wrong size is refused by the library's own message."""
    torch.manual_seed(0)
    sizes = Params.model_validate(TINY).image
    assert sizes is not None
    video = UNetMotionModel.from_unet2d(image_unet(sizes, 4, 16), MotionAdapter(
        block_out_channels=(16, 16), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=8,
        motion_max_seq_length=8, use_motion_mid_block=False))
    video.save_motion_modules(str(tmp_path))
    motion = {**TINY["motion"], "adapter": tmp_path, "train": {**STEPS, "learning_rate": 1e-9}}
    made = build(Params.model_validate({**TINY, "motion": motion})).fit(clips(), Memory(), seed=0)
    given = MotionAdapter.from_pretrained(tmp_path).state_dict()
    for name, value in made.nets["motion"].state_dict().items():
        torch.testing.assert_close(value, given[name], atol=1e-6, rtol=0)


def test_a_folder_in_stable_diffusion_s_layout_is_the_start(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    AutoencoderKL(3, 3, ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2, (8, 16), norm_num_groups=4).save_pretrained(
        tmp_path / "vae")
    size = ImageParams(channels=[16, 16], head_width=8, train=TrainParams(steps=1, batch_size=1))
    image_unet(size, 4, 16).save_pretrained(tmp_path / "unet")
    words = {word: place for place, word in enumerate(["<pad>", "<unk>", "it", "goes", "right", "down"])}
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(vocab_size=len(words), hidden_size=16, intermediate_size=16,
                                                                  num_hidden_layers=1, num_attention_heads=2,
                                                                  max_position_embeddings=8, bos_token_id=0, eos_token_id=0))
    text.save_pretrained(tmp_path / "text_encoder")
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        tmp_path / "tokenizer")
    barely = {**STEPS, "learning_rate": 1e-9}
    params = Params.model_validate({"pretrained": tmp_path, "finetune": barely, "motion": TINY["motion"]})
    made = build(params).fit(clips(), Memory(), seed=0)
    assert list(made.losses) == ["image", "motion"]
    given = UNet2DConditionModel.from_pretrained(tmp_path / "unet").state_dict()
    for name, value in made.nets["unet"].state_dict().items():
        torch.testing.assert_close(value, given[name], atol=1e-6, rtol=0)
    read = made.nets["text"](["it goes down"])[0]
    own = text.eval()(input_ids=torch.tensor([[2, 3, 5, 0, 0, 0, 0, 0]])).last_hidden_state[0]
    torch.testing.assert_close(read, own, atol=1e-5, rtol=1e-4)  # padding as Stable Diffusion has it: seen, not zero
    assert build(params, made).sample(asked([0]), [1], Sampling(steps=2)).frames.shape == (1, FRAMES, 1, SIDE, SIDE)


def test_taef2_serves_as_the_codec() -> None:
    """It says its scale as diffusers' own tiny autoencoders do: 1."""
    folder = Path(os.environ.get("CINEFAB_WEIGHTS", "")) / "taef2"
    if not (folder / "taef2_encoder.pth").exists():
        pytest.skip("set CINEFAB_WEIGHTS to a folder that has taef2/")
    made = build(Params.model_validate({**TINY, "codec": {"taef2": folder}})).fit(clips(), Memory(), seed=0)
    assert again(made).sample(asked([0]), [1], Sampling(steps=2)).frames.shape == (1, FRAMES, 1, SIDE, SIDE)


@pytest.mark.parametrize(("change", "message"), [
    ({"codec": None}, "give codec, alignment and image, or pretrained and finetune"),
    ({"pretrained": "x", "finetune": STEPS}, "stands in place of codec, alignment and image"),
])
def test_half_a_start_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Params.model_validate({**TINY, **change})


def test_clips_longer_than_the_motion_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clip_frames is 4, but motion\.longest is 2"):
        build(Params.model_validate({**TINY, "motion": {**TINY["motion"], "longest": 2}})).fit(clips(), Memory(), 0)
