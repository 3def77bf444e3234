"""Labels that no table holds: whether a structure's volume is at or above the training patients' median."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

SMALL, LARGE = "small", "large"


def volume_labels(volumes: Sequence[float | None], patients: Sequence[str], trained: Sequence[bool]) -> list[str]:
    """`LARGE` for a volume at or above the median over training patients, else `SMALL`.

    Nothing of a patient outside the training split has a say in it. A patient's volume is the mean over its clips' sources.

    Args:
        volumes: of the annotated structure in each clip's source, mm^3.
        patients: of each clip.
        trained: whether each clip is of the training split.

    Raises:
        ValueError: if a clip's source has no mask.
    """
    if None in volumes:
        missing = sum(one is None for one in volumes)
        raise ValueError(f"dataset.label_from: mask_volume, but {missing} of {len(volumes)} clips are of files without a mask; "
                         "give masks, or a label column")
    known = [float(volume or 0) for volume in volumes]
    own: dict[str, list[float]] = {}
    for volume, patient, train in zip(known, patients, trained, strict=True):
        if train:
            own.setdefault(patient, []).append(volume)
    bar = median(sum(values) / len(values) for values in own.values())
    return [LARGE if volume >= bar else SMALL for volume in known]
