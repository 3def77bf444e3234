"""Checkpoints and training states through the real files, networks and training loop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

import tasks.checkpoints
from models.generators import Checkpoint
from models.trainer import TrainParams, TrainState, fit
from tasks.checkpoints import FolderStates, checkpoint_digest, is_done, load_checkpoint, save_checkpoint
from tasks.tables import file_digest
from tasks.verify import verify_tree

ROOT = Path(__file__).parents[2]
TRAINED_ON = {"split": "train", "clips": ["a", "b"], "patients": ["p"], "digest": "d"}


def unet(seed: int = 0, channels: int = 8) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(channels,), norm_num_groups=2,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip


def vae(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(4,), norm_num_groups=2, latent_channels=1,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), mid_block_add_attention=False,
    )  # fmt: skip


def checkpoint(seed: int = 0) -> Checkpoint:
    return Checkpoint(
        "sfvd",
        {"scene": {"channels": 8}, "rate": 1e-4},
        {"scene": unet(seed), "vae": vae(seed)},
        {"clip_shape": [2, 1, 8, 8], "classes": 1},
        {"scene": [1 / 3, 0.1, 1e-17], "motion": [2.0]},
    )


def save(folder: Path, seed: int = 0, fingerprint: str = "f") -> str:
    return save_checkpoint(folder, checkpoint(seed), fingerprint=fingerprint, trained_on=TRAINED_ON)


def tree(path: Path) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): file_digest(file) for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "sfvd"
    save(folder)
    return folder


def test_it_comes_back_bit_for_bit(whole: Path) -> None:
    expected = checkpoint()
    before = torch.get_rng_state()
    loaded = load_checkpoint(whole)
    assert torch.equal(torch.get_rng_state(), before)
    for part in ("kind", "params", "facts", "losses"):
        assert getattr(loaded, part) == getattr(expected, part)
    assert list(loaded.nets) == ["scene", "vae"]
    for name, net in loaded.nets.items():
        assert type(net) is type(expected.nets[name]) and not net.training
        for key, value in expected.nets[name].state_dict().items():
            assert torch.equal(net.state_dict()[key], value), key
    frames, step = torch.randn(1, 1, 8, 8), torch.tensor([3])
    assert torch.equal(loaded.nets["scene"](frames, step).sample, expected.nets["scene"].eval()(frames, step).sample)


def test_the_folder_is_in_diffusers_own_layout(whole: Path) -> None:
    net = UNet2DModel.from_pretrained(whole / "scene", local_files_only=True)
    assert all(torch.equal(value, unet().state_dict()[key]) for key, value in net.state_dict().items())
    assert sorted(tree(whole)) == [
        "checkpoint.json", "losses.csv", "scene/config.json", "scene/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    assert (whole / "losses.csv").read_text() == f"phase,step,loss\nscene,0,{1 / 3}\nscene,1,0.1\nscene,2,1e-17\nmotion,0,2.0\n"


def test_equal_checkpoints_give_equal_bytes_wherever_they_are(tmp_path: Path, whole: Path) -> None:
    digest = save(tmp_path / "elsewhere")
    assert digest == checkpoint_digest(whole) and tree(tmp_path / "elsewhere") == tree(whole)
    copy = load_checkpoint(whole)  # networks that know where they were loaded from
    copy.nets["scene"] = UNet2DModel.from_pretrained(whole / "scene", local_files_only=True)
    assert save_checkpoint(tmp_path / "copy", copy, fingerprint="f", trained_on=TRAINED_ON) == digest
    assert tree(tmp_path / "copy") == tree(whole)


def test_the_digest_is_of_the_content_not_of_the_code(tmp_path: Path, whole: Path) -> None:
    digest = checkpoint_digest(whole)
    assert save(tmp_path / "code", fingerprint="other code") == digest
    assert save(tmp_path / "seed", seed=1) != digest
    other = checkpoint()
    other.facts["classes"] = 2
    assert save_checkpoint(tmp_path / "facts", other, fingerprint="f", trained_on=TRAINED_ON) != digest
    assert save_checkpoint(tmp_path / "data", checkpoint(), fingerprint="f", trained_on={"clips": []}) != digest


def test_is_done_only_for_its_fingerprint_and_while_whole(tmp_path: Path) -> None:
    folder = tmp_path / "sfvd"
    assert not is_done(folder, "f")
    save(folder)
    assert is_done(folder, "f") and not is_done(folder, "g")
    (folder / "losses.csv").unlink()
    assert not is_done(folder, "f")


def test_what_was_there_is_replaced_but_not_the_training_state(tmp_path: Path) -> None:
    folder = tmp_path / "sfvd"
    (folder / "old_net").mkdir(parents=True)
    (folder / "old_net/config.json").write_text("{}")
    (folder / ".new.partial/scene").mkdir(parents=True)
    FolderStates(folder / ".state", "f").save("scene", TrainState(1, {"w": torch.ones(2)}, [0.5]))
    save(folder, seed=1)
    save(folder)
    assert FolderStates(folder / ".state", "f").load("scene") is not None
    FolderStates(folder / ".state", "f").clear()
    save(tmp_path / "fresh")
    assert tree(folder) == tree(tmp_path / "fresh")


def test_a_hard_link_into_the_cache_is_never_written_through(tmp_path: Path) -> None:
    folder, cache = tmp_path / "sfvd", tmp_path / "cache"
    save(folder)
    cache.mkdir()
    for number, file in enumerate(sorted(file for file in folder.rglob("*") if file.is_file())):
        os.link(file, cache / str(number))
        file.chmod(0o444)
    before = tree(cache)
    save(folder, seed=1)
    assert tree(cache) == before


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found_and_its_file_named(whole: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(file for file in whole.rglob("*") if file.is_file())))
    original = file.read_bytes()
    content = bytearray(original)
    position = data.draw(st.integers(0, len(content) * 8 - 1))
    content[position // 8] ^= 1 << position % 8
    file.write_bytes(content)
    try:
        assert not is_done(whole, "f")
        with pytest.raises(ValueError, match=file.relative_to(whole).as_posix().replace(".", r"\.")):
            load_checkpoint(whole)
    finally:
        file.write_bytes(original)


def test_missing_files_are_named(tmp_path: Path, whole: Path) -> None:
    for name in tree(whole):
        folder = tmp_path / "sfvd"
        shutil.copytree(whole, folder)
        (folder / name).unlink()
        with pytest.raises(ValueError, match="no checkpoint here" if name == "checkpoint.json" else name.replace(".", r"\.")):
            load_checkpoint(folder)
        shutil.rmtree(folder)


def test_one_that_was_being_saved_is_none_to_verify(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "sfvd" / ".new.partial")
    (tmp_path / "sfvd" / ".new.partial" / "losses.csv").rename(tmp_path / "sfvd" / "losses.csv")
    assert verify_tree(tmp_path) == (0, [])


def test_only_listed_classes_are_saved_or_built(tmp_path: Path) -> None:
    one = checkpoint()
    one.nets["scene"] = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"nets\.scene: class torch"):
        save_checkpoint(tmp_path / "a", one, fingerprint="f", trained_on={})
    assert not (tmp_path / "a/checkpoint.json").exists()


@pytest.mark.parametrize("facts", [{"mean": float("nan")}, {"shape": torch.ones(1)}])
def test_facts_that_are_not_json_are_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    one = Checkpoint("sfvd", {}, {"scene": unet()}, facts, {})
    with pytest.raises(ValueError, match="plain JSON values"):
        save_checkpoint(tmp_path / "a", one, fingerprint="f", trained_on={})


KILLER = """
    import os, random, signal, sys, time
    sys.path[:0] = {paths!r}
    from pathlib import Path
    import torch
    from test_checkpoints import save
    from tasks.checkpoints import checkpoint_digest, is_done

    torch.set_num_threads(1)  # a fork has no other threads
    folder, rng, whole = Path(sys.argv[1]), random.Random(1), 0
    digests = [save(folder.with_name("a"), seed=0), save(folder.with_name("b"), seed=1)]
    for kill in range(12):
        writer = os.fork()
        if writer == 0:
            save(folder, seed=kill % 2)
            os._exit(0)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        if (folder / "checkpoint.json").exists():
            assert is_done(folder, "f") and checkpoint_digest(folder) in digests
            whole += 1
    print(whole)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_it_is_whole_or_not_there(tmp_path: Path) -> None:
    script = textwrap.dedent(KILLER).format(paths=[str(ROOT), str(Path(__file__).parent)])
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "sfvd")], check=True)
    save(tmp_path / "sfvd")
    save(tmp_path / "fresh")
    assert tree(tmp_path / "sfvd") == tree(tmp_path / "fresh")


def test_dying_at_any_step_leaves_the_old_the_new_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sfvd"
    whole = {save(tmp_path / "old", seed=1), save(tmp_path / "new")}
    found: list[str] = []
    for steps in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, seed=1)
        left = iter(range(steps))

        def dying(real: Callable[..., object], left: Iterator[int] = left) -> Callable[..., object]:
            def step(*args: object, **options: object) -> object:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return real(*args, **options)

            return step

        steps_of = ((Path, "rename"), (Path, "unlink"), (Path, "rmdir"), (shutil, "rmtree"), (tasks.checkpoints, "sync"))
        for owner, name in steps_of:
            monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
        try:
            save(folder)
            survived = True
        except KeyboardInterrupt:
            survived = False
        monkeypatch.undo()
        if (folder / "checkpoint.json").exists():
            load_checkpoint(folder)
            found.append(checkpoint_digest(folder))
            assert found[-1] in whole
        else:
            found.append("none")
        if survived:
            break
    order = list(dict.fromkeys(found))  # first the old one, then none, then the new one
    assert survived and order == [checkpoint_digest(tmp_path / "old"), "none", checkpoint_digest(tmp_path / "new")]


# ---- training states

PARAMS = TrainParams(steps=12, batch_size=4, learning_rate=1e-2, save_every=3, warmup_steps=2, cosine=True, ema_decay=0.9)


class KilledError(RuntimeError):
    """The process dies here."""


def denoise(stop: int | None = None) -> Callable[[nn.Module, torch.Generator], Tensor]:
    steps = iter(range(1000))

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        if next(steps) == stop:
            raise KilledError
        clean = torch.rand(4, 1, 8, 8, generator=rng)
        return ((net(clean + torch.randn(4, 1, 8, 8, generator=rng), torch.tensor([5])).sample - clean) ** 2).mean()

    return loss


class Nowhere:
    """States that are never kept."""

    def load(self, phase: str) -> TrainState | None:
        return None

    def save(self, phase: str, state: TrainState) -> None: ...


def test_killed_and_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    undisturbed = unet()
    losses = fit(undisturbed, denoise(), PARAMS, phase="scene", seed=7, hook=Nowhere())
    for stop in (5, 3):  # in the second run after step 3, that is at step 6 of the whole
        with pytest.raises(KilledError):
            fit(unet(), denoise(stop), PARAMS, phase="scene", seed=7, hook=FolderStates(tmp_path / ".state", "f"))
    state = FolderStates(tmp_path / ".state", "f").load("scene")
    assert state is not None and state.step == 6 and state.losses == losses[:6]
    resumed = unet(seed=99)
    assert fit(resumed, denoise(), PARAMS, phase="scene", seed=7, hook=FolderStates(tmp_path / ".state", "f")) == losses
    for key, value in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


TENSORS = {"net.w": torch.randn(3, 2), "optimiser.0.step": torch.tensor(2.0), "half": torch.ones(2, dtype=torch.bfloat16)}
STATE = TrainState(2, TENSORS, [0.1, 1 / 3])


def same(found: TrainState | None, expected: TrainState = STATE) -> bool:
    if found is None or set(found.tensors) != set(expected.tensors):
        return False
    pairs = [(found.tensors[name], value) for name, value in expected.tensors.items()]
    equal = all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs)
    return equal and (found.step, found.losses) == (expected.step, expected.losses)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    states = FolderStates(tmp_path / ".state", "f")
    assert states.load("scene") is None
    states.save("scene", STATE)
    assert same(states.load("scene"))
    assert states.load("motion") is None
    states.clear()
    assert not (tmp_path / ".state").exists()


def test_a_state_of_another_fingerprint_or_phase_is_removed(tmp_path: Path) -> None:
    FolderStates(tmp_path, "old").save("scene", STATE)
    FolderStates(tmp_path, "new").save("motion", STATE)
    assert FolderStates(tmp_path, "new").load("scene") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["motion.safetensors"]
    (tmp_path / "motion.safetensors").rename(tmp_path / "scene.safetensors")
    assert FolderStates(tmp_path, "new").load("scene") is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_torn_or_flipped_state_is_ignored(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("states")
    states = FolderStates(folder, "f")
    states.save("scene", STATE)
    path = folder / "scene.safetensors"
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        start = len(content) - sum(value.nbytes for value in load_file(path).values())  # the tensors, after the header
        position = data.draw(st.integers(start * 8, len(content) * 8 - 1))
        content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)
    assert states.load("scene") is None


def test_a_flipped_header_never_gives_another_state(tmp_path: Path) -> None:
    states = FolderStates(tmp_path, "f")
    states.save("scene", STATE)
    path = tmp_path / "scene.safetensors"
    original = path.read_bytes()
    length = int.from_bytes(original[:8], "little")
    assert json.loads(original[8 : 8 + length])["__metadata__"]
    for position in range(8 + length):
        content = bytearray(original)
        content[position] ^= 1
        path.write_bytes(content)
        loaded = states.load("scene")
        assert loaded is None or same(loaded), position  # a flip in the padding changes nothing


@pytest.mark.parametrize("phase", ["../scene", "a/b", "", "."])
def test_a_phase_that_is_no_file_name_is_refused(tmp_path: Path, phase: str) -> None:
    with pytest.raises(ValueError, match="phase"):
        FolderStates(tmp_path, "f").save(phase, STATE)
