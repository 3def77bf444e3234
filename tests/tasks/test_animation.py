"""Image to video: measures in closed form, generators whose quality is known, intervals by patient, held-out clips alone."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_line
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from test_report import Page
from torch import Tensor

from models.critics import vae
from models.generators import Checkpoint
from models.generators.lddm import Lddm, Params, build
from models.lpips import HEADS
from models.nets.alexnet_vgg import KNOWN, Backbone
from models.nets.clip_autoencoder import ClipDecoder, ClipEncoder
from models.nets.dynamics_denoiser import GridDenoiser
from models.seeding import generator
from models.trainer import TrainParams
from models.weight_files import WeightFile
from tasks.animation import DIVERSITY, MOTION, SEEDS, animation, summary
from tasks.arms import NoStates
from tasks.checkpoints import load_checkpoint, save_checkpoint
from tasks.metrics.appearance import appearance
from tasks.metrics.diversity import motions_apart, pixels_apart
from tasks.metrics.reconstruction import psnr, ssim
from tasks.nearness import Nearness, measures
from tasks.params import ControlParams, load_params
from tasks.report import report
from tasks.shard_reader import ShardReader
from tasks.tables import read_json
from tasks.train import held_out_clips, train_generator, training_clips

STEPS = {"steps": 2, "batch_size": 2, "save_every": 1}
PARAMS: dict[str, Any] = {"autoencoder": {"width": 8, "features": 8, "train": STEPS}, "denoiser": [16, 16], "diffusion": STEPS}
SAMPLING = {"steps": 2}
TEST = [row for row, split in enumerate(tiny_line.SPLITS) if split == "test"]
BEST = 20 * math.log10(255) + 10 * math.log10(12)
"""PSNR of an error no larger than that of storing 8 bits."""


def test_psnr_of_a_known_error() -> None:
    real = torch.rand(2, 3, 1, 16, 16, generator=generator(0)) - 0.5
    apart = torch.tensor([0.1, 0.2, 0.4])[:, None, None, None]
    assert psnr(real + apart, real).tolist() == pytest.approx([20 * math.log10(2) - 20 * math.log10(0.008) / 3] * 2, rel=1e-4)
    assert psnr(real, real).tolist() == pytest.approx([BEST] * 2)


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 24)])
def test_ssim_is_that_of_scikit_image(channels: int, side: int) -> None:
    first, second = (torch.rand(2, 3, channels, side, side, generator=generator(seed)) * 2 - 1 for seed in (0, 1))
    second = 0.6 * first + 0.4 * second
    light = [(one.flatten(0, 1).numpy() + 1) / 2 for one in (first, second)]
    wanted = [structural_similarity(one, other, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                    channel_axis=0) for one, other in zip(*light, strict=True)]
    assert ssim(first, second).tolist() == pytest.approx(np.reshape(wanted, (2, 3)).mean(1).tolist(), abs=1e-5)
    assert ssim(first, first).tolist() == pytest.approx([1, 1])


def test_hand_made_diversity() -> None:
    draws = torch.zeros(2, 3, 4, 1, 16, 16)
    draws[0, :, 1:] += torch.tensor([0.0, 0.1, 0.3])[:, None, None, None, None]  # pairs 0.1, 0.3, 0.2
    draws[1, :, 0] += torch.tensor([0.0, 0.5, 0.9])[:, None, None, None]  # the still does not count
    assert pixels_apart(draws).tolist() == pytest.approx([0.2, 0])
    fields = torch.zeros(1, 3, 2, 2, 16, 16)
    fields[:, 1, :, 0], fields[:, 1, :, 1] = 3, 4  # 5 pixels from both others
    assert motions_apart(fields).tolist() == pytest.approx([10 / 3])


def numbers(near: list[float], repeated: list[float]) -> dict[str, dict[str, Tensor]]:
    first, second = torch.tensor(near), torch.tensor(repeated)
    return {"psnr": {"value": first, "repeated": second},
            **{name: {"samples": first, "reconstructions": second} for name in DIVERSITY},
            **{name: {"samples": first, "reconstructions": second, "real": second} for name in MOTION}}


def test_a_patient_counts_once_whatever_its_number_of_clips() -> None:
    near = {"psnr": Nearness("dB", 1, psnr)}
    values = [10.0] * 90 + [22.0, 24.0, 26.0]
    patients = ["a"] * 90 + ["b", "c", "d"]
    found = summary(numbers(values, [20.0] * 93), near, DIVERSITY, patients)
    one = found["reconstruction"]["psnr"]
    assert (found["clips"], found["patients"]) == (93, 4)
    assert one["value"] == pytest.approx((10 + 22 + 24 + 26) / 4) and one["margin"] == pytest.approx(0.5)
    assert one["low"] < -4 and one["high"] > 4 and not one["excludes_0"]  # over clips it would exclude 0 by far
    assert "They do not beat it" in found["sentences"]["reconstruction"]
    clear = summary(numbers([24.0, 25.0, 26.0], [20.0] * 3), near, DIVERSITY, ["a", "b", "c"])
    assert clear["reconstruction"]["psnr"]["low"] > 0 and "3 patients are 5.00 dB (PSNR) nearer" in clear["sentences"][
        "reconstruction"] and clear["sentences"]["reconstruction"].endswith("They beat it.")
    distance = summary(numbers([24.0, 25.0, 26.0], [20.0] * 3), {"psnr": Nearness("distance", -1, psnr)}, DIVERSITY,
                       ["a", "b", "c"])
    assert distance["reconstruction"]["psnr"]["margin"] == pytest.approx(-5)
    alone = summary(numbers([24.0, 25.0], [20.0] * 2), near, DIVERSITY, ["a", "a"])
    assert alone["reconstruction"]["psnr"]["low"] is None and not alone["reconstruction"]["psnr"]["excludes_0"]
    assert "2 held-out clips of 1 patient are" in alone["sentences"]["reconstruction"]
    assert "They do not beat it" in alone["sentences"]["reconstruction"]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny line with a trained LDDM, one that was never trained, and a VAE critic."""
    data = tmp_path_factory.mktemp("animation")
    tiny_line.build(data, tiny_line.params())
    train_generator("lddm", {"kind": "lddm", **PARAMS}, 0, data / "prepared", data / "checkpoints" / "lddm")
    wanted = Params.model_validate(PARAMS)
    clip = (1, tiny_line.FRAMES, tiny_line.SIDE, tiny_line.SIDE)
    nets = {"encoder": ClipEncoder(1, 8, "grid", 4), "decoder": ClipDecoder(*clip, 8, "grid", 4),
            "denoiser": GridDenoiser(4, 1, [16, 16])}
    facts = {"clip_shape": [clip[1], clip[0], *clip[2:]], "latent_mean": [0.0] * 4, "latent_std": [1.0] * 4}
    save_checkpoint(data / "checkpoints" / "untrained", Checkpoint("lddm", wanted.model_dump(mode="json"), nets, facts, {}),
                    fingerprint="f", trained_on={})
    look = vae.fit(vae.Params(channels=[8, 8], train=TrainParams(**STEPS)), training_clips(data / "prepared")[0], NoStates(), 0)
    save_checkpoint(data / "critics" / "look", look, fingerprint="f", trained_on={})
    return data


def measured(line: Path, out: Path, checkpoint: str, **params: Any) -> dict[str, Any]:
    return animation(ControlParams(**params), SAMPLING, line / "prepared", line / "checkpoints" / checkpoint,
                     line / "critics", out)


def test_a_generator_that_repeats_the_first_frame_has_no_margin(line: Path, tmp_path: Path) -> None:
    found = measured(line, tmp_path, "untrained", vae="look")
    for one in found["reconstruction"].values():
        assert one["value"] == pytest.approx(one["repeated"]) and abs(one["margin"]) < 1e-9 and not one["excludes_0"]
    assert found["diversity"]["pixels"] == {"samples": 0, "reconstructions": 0, "ratio": None, "difference": 0, "low": 0,
                                            "high": 0, "excludes_0": False, "what": DIVERSITY["pixels"]}
    looks = [name for name in found["diversity"] if name.startswith(("look (VAE", "random3d (random"))]
    assert len(looks) == 2 and all(found["diversity"][name]["samples"] == 0 for name in looks)
    assert "do not differ more" in found["sentences"]["diversity"]
    motion = found["motion"]
    assert motion["frame_change"]["samples"] == motion["frame_change"]["reconstructions"] == 0 < motion["frame_change"]["real"]
    assert motion["motion_energy"]["high"] < 0


def test_a_perfect_autoencoder_has_the_highest_numbers(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def perfect(self: Lddm, frames: Tensor, rng: torch.Generator | None = None) -> Tensor:
        noise = 0 if rng is None else 0.1 * torch.randn(len(frames), 1, 1, 1, 1, generator=rng)
        return frames + noise

    monkeypatch.setattr(Lddm, "reconstruct", perfect)
    found = measured(line, tmp_path, "untrained", vae="look")
    clips = held_out_clips(line / "prepared")[0].read(range(len(TEST))).frames
    repeated = clips[:, :1].expand_as(clips)[:, 1:]
    near = found["reconstruction"]
    assert near["psnr"]["value"] == pytest.approx(BEST) and near["ssim"]["value"] == pytest.approx(1)
    assert near["latents"]["value"] == 0 < near["latents"]["margin"] == near["latents"]["repeated"]
    assert near["psnr"]["repeated"] == pytest.approx(float(psnr(repeated, clips[:, 1:]).mean()), rel=1e-5)
    assert all(one["excludes_0"] and one["low"] > 0 for one in near.values())
    seen = appearance(clips)
    for name, one in found["motion"].items():
        assert one["real"] == one["reconstructions"] == pytest.approx(float(seen[name].mean()))
    assert found["diversity"]["pixels"]["reconstructions"] > 0 == found["diversity"]["pixels"]["samples"]
    assert found["diversity"]["pixels"]["high"] < 0


def test_a_real_generator_is_looked_at_on_held_out_clips_alone(line: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    read, rows = ShardReader.read, set[int]()

    def watched(self: ShardReader, wanted: list[int]) -> Any:
        rows.update(wanted)
        return read(self, wanted)

    monkeypatch.setattr(ShardReader, "read", watched)
    found = measured(line, tmp_path / "a", "lddm")
    assert rows == set(TEST)
    assert (found["clips"], found["patients"], found["samples"]) == (4, 4, len(SEEDS))
    assert set(found["reconstruction"]) == {"psnr", "ssim"}
    assert len(found["diversity"]) == 3 and all(one["samples"] > 0 < one["reconstructions"]
                                                for one in found["diversity"].values())
    assert read_json(tmp_path / "a" / "animation.json") == found
    with Image.open(tmp_path / "a" / "animation.webp") as image:
        assert image.n_frames == tiny_line.FRAMES and image.width > 4 * image.height / 3
    assert measured(line, tmp_path / "b", "lddm") == found
    for name in ("animation.json", "animation.webp"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_latents_are_drawn_from_the_posterior(line: Path) -> None:
    made = load_checkpoint(line / "checkpoints" / "lddm")
    animator = build(Params.model_validate(made.params), made)
    clips = held_out_clips(line / "prepared")[0].read([0, 1]).frames
    drawn = [animator.reconstruct(clips, generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0][:, 0], clips[:, 0])
    with torch.no_grad():
        mean, log_variance = made.nets["encoder"](clips)
    noise = torch.randn(mean.shape, generator=generator(1))
    torch.testing.assert_close(drawn[2], animator.dynamics.decode(clips[:, 0], mean + (0.5 * log_variance).exp() * noise))
    torch.testing.assert_close(animator.reconstruct(clips), animator.dynamics.decode(clips[:, 0], mean))


def test_a_generator_that_animates_nothing_has_no_numbers(line: Path, tmp_path: Path) -> None:
    video = {"video": {"channels": [16, 16], "head_width": 8, "train": STEPS}}
    save_checkpoint(tmp_path / "vdm", Checkpoint("vdm", video, {}, {}, {}), fingerprint="f", trained_on={})
    (tmp_path / "animation.json").write_text("{}")  # of the generator before
    assert animation(ControlParams(), {}, line / "prepared", tmp_path / "vdm", line / "critics", tmp_path) == {}
    assert not (tmp_path / "animation.json").exists()


def test_a_pretrained_network_is_named(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    transformers.ResNetModel(small).save_pretrained(tmp_path / "small_resnet")
    one = measures(ControlParams(perceptual=tmp_path / "small_resnet"), tmp_path, None)["perceptual"]
    assert "(small_resnet, resnet)" in one.what and "no LPIPS" in one.what and one.sign == -1
    clips = torch.rand(2, 20, 1, 16, 16, generator=generator(0)) * 2 - 1  # 40 frames: more than are seen together
    other = clips.clone()
    other[1, 0] = 0
    assert one.measure(clips, clips).tolist() == [0, 0]
    first, second = one.measure(other, clips).tolist()
    assert first == 0 < second


def test_lpips_from_files(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in the form of the published files, taken for them; named by what they stand for in both places."""
    torch.manual_seed(0)
    net = Backbone("alex")
    widths = [net.features[place - 1].out_channels for place in net.known.taps]
    heads = {f"lin{layer}.model.1.weight": torch.rand(1, width, 1, 1) for layer, width in enumerate(widths)}
    for file, stored in ((KNOWN["alex"].file, net.state_dict()), (HEADS["alex"], heads)):
        torch.save(stored, tmp_path / file.name)
    params = {"lpips": {"weights": tmp_path, "heads": tmp_path, "net": "alex"}, "features": []}
    with pytest.raises(ValueError, match="has sha256"):
        measured(line, tmp_path, "lddm", **params)
    monkeypatch.setattr(WeightFile, "within", lambda self, folder: folder / self.name)
    found = measured(line, tmp_path, "lddm", **params)
    assert set(found["reconstruction"]) == {"psnr", "ssim", "lpips"}
    assert found["reconstruction"]["lpips"]["what"].startswith("LPIPS (AlexNet), version 0.1; lower is nearer")
    assert list(found["diversity"])[2:] == ["LPIPS (AlexNet)", "AlexNet (LPIPS's five layers; own size)"]
    near, apart = found["reconstruction"]["lpips"], found["diversity"]["LPIPS (AlexNet)"]
    assert near["margin"] == pytest.approx(near["repeated"] - near["value"]) and near["value"] > 0
    assert apart["difference"] == pytest.approx(apart["samples"] - apart["reconstructions"]) and apart["samples"] > 0


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    assert text.count("control: {classifier: null") == 1
    (tmp_path / "params.yaml").write_text(text.replace("control: {classifier: null",
                                                       "control: {perceptual: /nowhere, classifier: null"))
    with pytest.raises(ValueError, match=r"control\.perceptual: /nowhere is no folder; put the pretrained weights there"):
        load_params(tmp_path / "params.yaml")
    for lpips, why in (("{weights: /nowhere, heads: .}", r"control\.lpips: /nowhere is no folder"),
                       ("{weights: ., heads: /nowhere}", r"control\.lpips: /nowhere is no folder"),
                       ("{weights: ., heads: ., net: squeeze}", r"control\.lpips\.net: Input should be 'vgg' or 'alex'")):
        (tmp_path / "params.yaml").write_text(text.replace("control: {classifier: null",
                                                           f"control: {{lpips: {lpips}, classifier: null"))
        with pytest.raises(ValueError, match=why):
            load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text(
        text.replace("control: {classifier: null", "control: {lpips: {weights: ., heads: ., net: alex}, classifier: null")
        .replace("frame_size: [40, 40]", "frame_size: [40, 24]"))
    with pytest.raises(ValueError, match=r"control\.lpips: alex needs frames of at least 31 x 31 pixels, but dataset"):
        load_params(tmp_path / "params.yaml")


def test_the_report_shows_it_where_it_is(line: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(line, data)
    tree = tiny_line.params()
    plain = Page(report(tree, data, data / "reports").read_text())
    assert "animation" not in plain.values("id") and "Image to video" not in plain.text
    found = measured(line, data / "control" / "no_consistency", "lddm", vae="look")
    page = Page(report(tree, data, data / "reports").read_text())
    again = (data / "reports" / "report.html").read_bytes()
    assert report(tree, data, data / "reports").read_bytes() == again
    assert "animation" in page.values("id") and "#animation" in page.values("href")
    for words in found["sentences"].values():
        assert words in page.text
    assert f"{found['reconstruction']['psnr']['repeated']:.3f}" in page.text and "warping error" in page.text
    shown = [tag for tag, attributes in page.tags if tag == "img" and "set no_consistency" in str(attributes["alt"])
             and "reconstructions" in str(attributes["alt"])]
    assert len(shown) == 1
