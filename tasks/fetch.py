"""Real data from its owners: the hippocampus task of the Medical Segmentation Decathlon, downloaded or copied, then checked."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from tasks.decoder import decoded
from tasks.params import DecoderParams
from tasks.readers import QuarantinedError, nifti
from tasks.tables import make_folder

TASK = "Task04_Hippocampus"
PATIENT = "(?P<patient>hippocampus_[0-9]+)"
"""Public names, which are numbers: the profiles say the same."""
LABELS = 2
"""Anterior and posterior."""


def fetch_hippocampus(target: Path, copy_from: Path | None = None) -> str:
    """260 volumes with masks into `target`/images and `target`/labels; real copies, every pair opened. Says what is there.

    Without `copy_from`, what `target` already holds is checked and kept; else MONAI downloads the archive (28 MB, CC BY-SA 4.0)
    and compares its MD5.

    Args:
        copy_from: a folder with images/ and labels/, or with imagesTr/ and labelsTr/ as the archive has them.

    Raises:
        ValueError: if there is no network, the archive is not the owners', or a volume or its mask is missing or broken.
    """
    if copy_from is None and (target / "images").is_dir():
        return f"{target} holds {_check(target / 'images', target / 'labels')} volumes with masks already"
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        source = copy_from if copy_from is not None else _download(Path(scratch))
        images, labels = _folders(source)
        count = _check(images, labels)
        made = Path(scratch) / "made"
        for folder, name in ((images, "images"), (labels, "labels")):
            (made / name).mkdir(parents=True)
            for file in _volumes(folder):
                shutil.copyfile(folder / file, made / name / file)
        if target.exists():
            target.rename(Path(scratch) / "old")
        made.rename(target)
    return f"{target} holds {count} volumes with masks"


def _download(scratch: Path) -> Path:
    from monai.apps.datasets import DecathlonDataset
    from monai.apps.utils import HashCheckError, download_url, extractall

    url, remedy = DecathlonDataset.resource[TASK], "or give a copy on disk: cinefab data hippocampus --from FOLDER"
    try:
        download_url(url, scratch / f"{TASK}.tar", hash_val=DecathlonDataset.md5[TASK], hash_type="md5")
        extractall(scratch / f"{TASK}.tar", scratch)
    except HashCheckError:
        raise ValueError(f"data hippocampus: the MD5 of {url} is not its owners'; try again later, {remedy}") from None
    except ValueError as error:  # members that lead out
        raise ValueError(f"data hippocampus: {url} is not to be unpacked ({error}); {remedy}") from None
    except (OSError, RuntimeError) as error:
        raise ValueError(f"data hippocampus: {url} cannot be downloaded ({error}); connect to the network, {remedy}") from None
    return scratch / TASK


def _folders(source: Path) -> tuple[Path, Path]:
    for images, labels in (("images", "labels"), ("imagesTr", "labelsTr")):
        if (source / images).is_dir() and (source / labels).is_dir():
            return source / images, source / labels
    raise ValueError(f"data hippocampus: {source} has neither images/ with labels/ nor imagesTr/ with labelsTr/")


def _volumes(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.nii.gz") if file.name[0] != ".")  # the archive holds macOS's ._ files


def _check(images: Path, labels: Path) -> int:
    """Open every pair; the number of pairs."""
    names = _volumes(images)
    if unpaired := sorted(set(names) ^ set(_volumes(labels))):
        raise ValueError(f"data hippocampus: {len(unpaired)} files in {images.parent} lack their partner, e.g. {unpaired[0]}")
    if not names:
        raise ValueError(f"data hippocampus: {images} holds no *.nii.gz; give the folder of the unpacked archive")
    options = nifti.Params.model_validate({"images": images.name, "masks": labels.name, "patient_pattern": PATIENT})
    for source in decoded("nifti", images.parent, options, DecoderParams()):
        if (reason := source.outside(images.parent)) is not None:
            raise ValueError(f"data hippocampus: {source.name} {reason}")
        try:
            masks = source.read().masks
        except QuarantinedError as error:
            raise ValueError(f"data hippocampus: {source.name} {error}; fetch it again") from None
        if masks is None or np.max(masks, initial=0) > LABELS:
            raise ValueError(f"data hippocampus: the mask of {source.name} has labels above {LABELS}; this is not {TASK}")
    return len(names)
