"""ACR TI-RADS points of a thyroid nodule in words, for the columns of the Stanford cine-clip table."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: dict[str, dict[str, str]] = {
    "ti-rads_composition": {"0": "cystic or spongiform", "1": "mixed cystic and solid", "2": "solid"},
    "ti-rads_echogenicity": {"0": "anechoic", "1": "isoechoic", "2": "hypoechoic", "3": "very hypoechoic"},
    "ti-rads_shape": {"0": "wider-than-tall", "3": "taller-than-wide"},
    "ti-rads_margin": {"0": "smooth", "2": "irregular", "3": "extra-thyroidal extension"},
    "ti-rads_echogenicfoci": {
        "1": "macrocalcifications",
        "2": "peripheral (rim) calcifications",
        "3": "punctate echogenic foci",
        "4": "macrocalcifications with punctate echogenic foci",
        "5": "peripheral (rim) calcifications with punctate echogenic foci",
    },
}
"""Column -> points -> words: those of Ctrl-GenAug's release, and ACR's where it has none.

Points say less than the radiologist saw: 0 of margin is smooth or ill-defined, 1 of echogenicity hyper- or isoechoic. Those of
foci add up over kinds of foci, so 4 is 1 and 3, 5 is 2 and 3; 0 is none, and says nothing.
"""
COLUMNS = tuple(WORDS)


def sentence(row: Mapping[str, str]) -> str:
    """Ctrl-GenAug's prompt: "The nodule is solid, hypoechoic, wider-than-tall, smooth, and macrocalcifications."

    A descriptor without points, or with points nothing is known of, is left out; "" if all are.
    """
    words = [names[row[column]] for column, names in WORDS.items() if row[column] in names]
    listed = ", and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
    return f"The nodule is {listed}." if listed else ""
