"""Real data sets from their owners. Nothing of them is ever committed or shipped."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from urllib.error import URLError

import nibabel
from nibabel.filebasedimages import ImageFileError

logger = logging.getLogger(__name__)
LAYOUTS = (("images", "labels"), ("imagesTr", "labelsTr"))


def fetch_hippocampus(target: Path, copy_from: Path | None = None) -> str:
    """Medical Segmentation Decathlon Task04 (260 T1 MRI crops with masks, CC BY-SA 4.0) into target/images and target/labels.

    Args:
        target: written whole or not at all.
        copy_from: a folder with images/ and labels/, or imagesTr/ and labelsTr/; without it MONAI downloads the archive and
            checks its MD5.

    Returns:
        One line saying how many pairs there are.

    Raises:
        ValueError: if the folder has another layout, or the download fails.
    """
    with tempfile.TemporaryDirectory(dir=_made(target.parent)) as scratch:
        source = copy_from if copy_from is not None else _download(Path(scratch))
        pairs = _pairs(source)
        partial = Path(scratch) / "partial"
        for folder in ("images", "labels"):
            (partial / folder).mkdir(parents=True)
        for image, mask in pairs:
            shutil.copyfile(image, partial / "images" / image.name)
            shutil.copyfile(mask, partial / "labels" / mask.name)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    return f"{target}: {len(pairs)} volumes with masks"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download(scratch: Path) -> Path:
    from monai.apps import DecathlonDataset
    from monai.apps.utils import download_and_extract

    task = "Task04_Hippocampus"
    try:
        download_and_extract(DecathlonDataset.resource[task], scratch / f"{task}.tar", scratch, DecathlonDataset.md5[task])
    except (URLError, OSError, RuntimeError) as error:
        raise ValueError(f"download of {task} failed ({error}); with a copy on disk: cinefab data hippocampus --from FOLDER") from None
    return scratch / task


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Images and masks of the same name that both open."""
    for images, masks in LAYOUTS:
        if (folder / images).is_dir() and (folder / masks).is_dir():
            found = sorted(path for path in (folder / images).glob("*.nii.gz") if not path.name.startswith("."))
            pairs = [(image, folder / masks / image.name) for image in found]
            good = [pair for pair in pairs if pair[1].exists() and _opens(pair[0]) and _opens(pair[1])]
            if not good:
                raise ValueError(f"{folder}: no volume with a mask of the same name in {images} and {masks}")
            if len(good) < len(pairs):
                logger.warning("%d of %d volumes have no readable mask and were left out", len(pairs) - len(good), len(pairs))
            return good
    raise ValueError(f"{folder}: has neither images and labels nor imagesTr and labelsTr; give the folder that holds them")


def _opens(path: Path) -> bool:
    try:
        nibabel.load(path)
    except (ImageFileError, OSError, EOFError):
        return False
    return True
