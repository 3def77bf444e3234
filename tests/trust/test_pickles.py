"""No pickle is ever loaded, and no code of a file is ever run: by lint, and by trapped files wherever the product reads any."""

from __future__ import annotations

import ast
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_hostile import own

from models import plugin
from models.codec import LocalVae, load_vae
from models.local_encoders import load_clip_tower, load_image_encoder, load_text_encoder
from models.nets.taef2 import load_taef2
from tasks.checkpoints import FolderStates, load_checkpoint
from tasks.decoder import decoded
from tasks.open_release import open_release
from tasks.params import DecoderParams, load_params
from tasks.profiles import apply_profiles
from tasks.readers import QuarantinedError
from tasks.records import ClipRecord
from tasks.store_check import verify
from tasks.tables import read_json, read_table
from tasks.verify import verify_tree

ROOT = Path(__file__).parents[2]
BANNED = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "pickletools"}
PROGRAMS = {"models/features/i3d.py", "models/features/inception_v3.py"}
"""Run a program that others published (TorchScript, no pickle), of which the checksum is compared first."""
CALLS = {"eval", "exec", "compile", "__import__", "load", "load_all", "full_load", "unsafe_load", "read_pickle", "to_pickle"}
ALLOWED = {"allow_pickle": "False", "trust_remote_code": "False", "use_safetensors": "True", "result_serializer": "'json'",
           "persist_result": "False"}
WORDS = {*ALLOWED, "typ"}
SOURCES = [path for floor in ("flows", "tasks", "models", "benchmarks", "docs")
           for path in sorted((ROOT / floor).rglob("*.py"))]


def offences(path: str, text: str) -> Iterator[str]:
    """What of this code might load a pickle or run what it is given."""
    for node in ast.walk(ast.parse(text)):
        names = ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                 else [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        yield from (f"{path}: imports {name}" for name in names if name.split(".")[0] in BANNED)
        if not isinstance(node, ast.Call):
            continue
        last = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if last not in CALLS and not WORDS & {word.arg for word in node.keywords}:
            continue
        called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if (called in ("eval", "exec", "compile", "__import__", "yaml.load", "yaml.load_all", "yaml.full_load")
                or last in ("unsafe_load", "read_pickle", "to_pickle")
                or (called == "torch.load" and given.get("weights_only") != "True")
                or (called == "torch.jit.load" and path not in PROGRAMS)
                or any(given.get(word, allowed) != allowed for word, allowed in ALLOWED.items())
                or "unsafe" in given.get("typ", "")):
            yield f"{path}: {ast.unparse(node)}"


def test_no_code_of_ours_loads_a_pickle() -> None:
    assert len(SOURCES) > 150
    assert [one for path in SOURCES for one in offences(path.relative_to(ROOT).as_posix(), path.read_text())] == []


@pytest.mark.parametrize("line", [
    "import pickle", "from joblib import load", "import dill as d", "torch.load(p)", "torch.load(p, weights_only=False)",
    "np.load(p, allow_pickle=True)", "yaml.load(t, Loader=yaml.Loader)", "yaml.unsafe_load(t)", "YAML(typ='unsafe')",
    "AutoModel.from_pretrained(p, trust_remote_code=True)", "eval(t)", "exec(t)", "pd.read_pickle(p)", "torch.jit.load(p)",
    "M.from_pretrained(p, use_safetensors=False)", "import shelve"])
def test_the_lint_finds_what_it_is_for(line: str) -> None:
    assert len(list(offences("x.py", line))) == 1


class Trap:
    """Leaves a mark wherever it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def traps(mark: Path) -> dict[str, bytes]:
    """Malicious pickles as every kind of file that may hold one."""
    plain = pickle.dumps(Trap(mark))
    saved, legacy, array, arrays, zipped, states = (io.BytesIO() for _ in range(6))
    torch.save({"weight": Trap(mark)}, saved)
    torch.save({"weight": Trap(mark)}, legacy, _use_new_zipfile_serialization=False)
    np.save(array, np.array([Trap(mark)], object), allow_pickle=True)
    np.savez(arrays, np.array([Trap(mark)], object))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", plain)
        archive.writestr("archive/version", "3")
    torch.save([Trap(mark), torch.ones(3)], states)
    table = pa.table({"clip_id": pa.array([plain]), "x": pa.array(["a"])}).replace_schema_metadata({b"pickle": plain})
    file = io.BytesIO()
    pq.write_table(table, file)
    return {"pickle": plain, "torch": saved.getvalue(), "legacy torch": legacy.getvalue(), "npy": array.getvalue(),
            "npz": arrays.getvalue(), "zip": zipped.getvalue(), "torch with tensors": states.getvalue(),
            "parquet": file.getvalue()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "own"
    own(folder)
    return folder


def test_the_traps_work(tmp_path: Path) -> None:
    """Or the other tests would hold whatever the product did."""
    for name, content in traps(tmp_path / "mark").items():
        if name in ("pickle", "legacy torch", "torch", "torch with tensors", "npy"):
            reads: Callable[[Any], Any] = {"pickle": pickle.load, "npy": lambda file: np.load(file, allow_pickle=True)}.get(
                name, lambda file: torch.load(file, weights_only=False))
            reads(io.BytesIO(content))
            assert (tmp_path / "mark").is_dir(), name
            (tmp_path / "mark").rmdir()


def refused(read: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, FileNotFoundError)):
        read()


def test_traps_in_our_own_files(whole: Path, tmp_path: Path) -> None:
    """In place of every file of a checkpoint, a state, a store and a release, and of tables and parameters."""
    mark, folder = tmp_path / "mark", tmp_path / "copy"
    shutil.copytree(whole, folder)
    readers: dict[str, list[Callable[[], Any]]] = {
        "checkpoint": [lambda: load_checkpoint(folder / "checkpoint"), lambda: verify_tree(folder / "checkpoint")],
        "state": [lambda: FolderStates(folder / "state", "mark").load("scene")],
        "release": [lambda: open_release(str(folder / "release")).load([0]), lambda: verify_tree(folder / "release"),
                    lambda: verify(folder / "release" / "clips.zarr")],
        "foreign": [lambda: load_image_encoder(folder / "foreign")],
        "params.yaml": [lambda: load_params(folder / "params.yaml")],
        "profile.yaml": [lambda: apply_profiles(folder / "params.yaml", [folder / "profile.yaml"])],
    }
    trapped = list(traps(mark).values())
    for number, path in enumerate(sorted(file for file in folder.rglob("*") if file.is_file())):
        kept = path.read_bytes()
        for content in (trapped[number % len(trapped)], trapped[(number + 3) % len(trapped)]):
            path.write_bytes(content)
            own_reads = readers.get(path.relative_to(folder).parts[0], [])
            for read in [*own_reads, lambda path=path: read_json(path), lambda path=path: read_table(path, ClipRecord)]:
                with suppress(ValueError, FileNotFoundError):
                    read()
                assert not mark.exists(), path
        path.write_bytes(kept)
    assert verify_tree(folder)[1] == []


WEIGHTS = ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.safetensors", "diffusion_pytorch_model.safetensors",
           "model.pt", "model.pkl", "flax_model.msgpack", "tf_model.h5", "pytorch_model.bin.index.json", "tokenizer.json",
           "i3d_pretrained_400.pt", "rgb_imagenet.pt", "i3d_torchscript.pt", "taef2_encoder.pth", "taef2_decoder.pth",
           "I3D_16.pth.tar", "vgg16-397923af.pth", "pt_inception-2015-12-05-6726825d.pth", "inception-2015-12-05.pt",
           "efficientnet-lite0-57934424.pth")


def test_traps_in_weights_of_others(whole: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for number, content in enumerate(traps(mark).values()):
        folder = tmp_path / f"weights{number}"
        folder.mkdir()
        shutil.copy(whole / "foreign" / "config.json", folder)
        for name in WEIGHTS:
            (folder / name).write_bytes(content)
        (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
        (folder / "evil.py").write_text(f"import os; os.mkdir({str(mark)!r})\n")
        for read in (load_image_encoder, load_text_encoder, load_clip_tower, load_taef2,
                     lambda folder: load_vae(LocalVae.model_validate({"folder": folder}))):
            refused(lambda read=read, folder=folder: read(folder))  # type: ignore[misc]
        for kind in plugin.kinds("models.features"):
            module = plugin.load("models.features", kind)
            if "weights" not in module.Params.model_fields:
                continue
            refused(lambda module=module, folder=folder: _extractor(module, folder))  # type: ignore[misc]
        assert not mark.exists()
    (folder / "config.json").write_text('{"model_type": "evil", "_class_name": "AutoencoderKL", "auto_map": '
                                        '{"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}')
    for read in (load_image_encoder, load_text_encoder, lambda folder: load_vae(LocalVae.model_validate({"folder": folder}))):
        refused(lambda read=read: read(folder))  # type: ignore[misc]
    assert not mark.exists()


def _extractor(module: Any, folder: Path) -> Any:
    return module.build(module.Params.model_validate({"weights": folder}), None)


def test_traps_in_raw_data(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    suffixes = {"dicom": ".dcm", "nifti": ".nii.gz", "video": ".mp4", "images": ".png", "mrnet": ".npy"}
    for reader, suffix in suffixes.items():
        folder = tmp_path / reader
        inside = folder / {"nifti": "images", "mrnet": "train/sagittal"}.get(reader, ".")
        inside.mkdir(parents=True)
        for number, content in enumerate(traps(mark).values()):
            (inside / f"{number:04d}{suffix}").write_bytes(content)
        options: dict[str, Any] = {"nifti": {"masks": None}, "images": {"stills": True}}.get(reader, {})
        (folder / "train-acl.csv").write_text("".join(f"{number:04d},1\n" for number in range(9)))
        module = plugin.load("tasks.readers", reader)
        sources = decoded(reader, folder, module.Params.model_validate(options), DecoderParams())
        assert len(sources) >= 8
        for source in sources:
            with pytest.raises(QuarantinedError):
                source.read()
        assert not mark.exists(), reader


def test_prefect_and_dvc_keep_no_pickle_of_ours() -> None:
    """Results are not persisted, so Prefect, whose serializer is pickle, has nothing to read back."""
    for path in (ROOT / "flows").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg in ("persist_result", "result_serializer", "result_storage",
                                                              "cache_key_fn", "cache_policy"):
                assert ast.unparse(node.value) in ("False", "NO_CACHE", "'json'"), f"{path}: {node.arg}"
