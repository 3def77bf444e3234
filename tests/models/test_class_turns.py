"""Classes are drawn equally often however many clips they have, and clips of a class likewise."""

from __future__ import annotations

from collections import Counter

from models.class_turns import ClassTurns
from models.seeding import generator


def test_every_class_and_every_clip_of_it_is_equally_likely() -> None:
    labels = ["common"] * 90 + ["rare"] * 3 + [""] * 7
    turns = ClassTurns(labels)
    drawn = Counter(turns.draw(12000, generator(0)))
    assert turns.classes == ["common", "rare"] and set(drawn) <= set(range(93))
    shown = Counter(labels[row] for row in drawn.elements())
    assert abs(shown["rare"] - 6000) < 250
    assert all(abs(drawn[row] - 2000) < 200 for row in (90, 91, 92)) and max(drawn[row] for row in range(90)) < 110


def test_uneven_every_clip_is_equally_likely_and_so_without_classes() -> None:
    for turns in (ClassTurns(["a"] * 9 + ["b"], even=False), ClassTurns([""] * 10)):
        drawn = Counter(turns.draw(10000, generator(1)))
        assert len(drawn) == 10 and all(abs(number - 1000) < 150 for number in drawn.values())


def test_a_seed_draws_the_same_rows_again() -> None:
    turns = ClassTurns(["a", "b", "b"])
    assert turns.draw(50, generator(4)) == turns.draw(50, generator(4)) != turns.draw(50, generator(5))
