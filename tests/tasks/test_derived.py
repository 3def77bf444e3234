"""Labels by volume: the training patients' median alone decides, and it is told where the numbers come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.derived import LARGE, SMALL, volume_labels


def test_the_median_is_over_training_patients() -> None:
    volumes = [10.0, 10.0, 20.0, 30.0, 1000.0, 25.0]
    patients = ["a", "a", "b", "c", "d", "e"]
    trained = [True, True, True, True, False, False]
    assert volume_labels(volumes, patients, trained) == [SMALL, SMALL, LARGE, LARGE, LARGE, LARGE]


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=9), st.lists(st.floats(1, 1e6), max_size=9))
def test_held_out_volumes_never_move_the_bar(train: list[float], test: list[float]) -> None:
    patients = [f"p{number}" for number in range(len(train) + len(test))]
    alone = volume_labels(train, patients[: len(train)], [True] * len(train))
    together = volume_labels(train + test, patients, [True] * len(train) + [False] * len(test))
    assert together[: len(train)] == alone
    assert LARGE in alone


def test_a_file_without_a_mask_is_named() -> None:
    with pytest.raises(ValueError, match="1 of 2 clips are of files without a mask"):
        volume_labels([3.0, None], ["a", "b"], [True, True])
