"""The Basic Application Level Confidentiality Profile (PS3.15 E.2): what becomes of each attribute of a DICOM header.

Attributes of Table E.1-1 get the action it asks for, at any depth; dicom-anonymizer has that table, written from the standard.
Of all others those of `tasks.dicom_header` are kept, and the rest is dropped, private ones among them.

Where the table leaves a choice to the type that an attribute has in an object's definition (X/Z, X/D, Z/D, ...), the one that
keeps every definition whole is taken: an attribute stays, empty or with a value that says nothing.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from tasks.dicom_header import kept_element
from tasks.pseudonyms import other_uid, pseudonym

EDITION = "2026c"
ACTIONS = {"D": "D", "Z": "Z", "X": "X", "U": "U", "Z_D": "Z/D", "X_Z": "X/Z", "X_D": "X/D", "X_Z_D": "X/Z/D",
           "X_Z_U_STAR": "X/Z/U*"}
"""The table's groups as the library names them, and as the standard does."""
DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS"), "0"), **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), bytes(8)),
    "AS": "000Y", "AT": Tag(0, 0), "DA": "19000101", "DT": "19000101000000", "TM": "000000", "UR": "http://removed.invalid",
}
PATIENT = (Tag("PatientName"), Tag("PatientID"))
logging.getLogger("dicomanonymizer").setLevel(logging.ERROR)


@lru_cache(maxsize=1)
def table() -> dict[tuple[int, ...], str]:
    """The required action by (group, element), or (group, element, group's mask, element's mask) of a repeating group."""
    groups = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    return {tuple(tag): action for name, action in ACTIONS.items() for tag in groups[f"{name}_TAGS"]}


def required(tag: BaseTag) -> str | None:
    """The action of Table E.1-1 for an attribute; None if it is not there."""
    if tag.is_private:
        return "X"
    found = table().get((tag.group, tag.element))
    return found or next((action for (group, element, *masks), action in table().items() if masks
                          and (tag.group & masks[0], tag.element & masks[1]) == (group & masks[0], element & masks[1])), None)


def deidentified(header: Dataset, patient: str) -> Dataset:
    """A new dataset; nothing of the old one is in it but what the module says, items of sequences likewise.

    Args:
        patient: the pseudonym that stands in place of PatientName and PatientID.
    """
    made = Dataset()
    for tag in header.keys():  # noqa: SIM118 (pydicom iterates over elements)
        if (element := _element(header, tag, patient)) is not None:
            made.add(element)
    return made


def _element(header: Dataset, tag: BaseTag, patient: str) -> DataElement | None:
    action = required(tag)
    if action is None:
        return kept_element(header, tag)
    if action == "X":
        return None
    vr = dictionary_VR(tag)
    if tag in PATIENT:
        return DataElement(tag, vr, patient)
    if action in ("Z", "X/Z"):
        return DataElement(tag, vr, Sequence() if vr == "SQ" else None if vr not in _TEXT else "")
    if vr == "SQ":
        return DataElement(tag, vr, Sequence(_items(header, tag, patient) or [Dataset()]))
    if vr == "UI":
        uids = _other_uids(header, tag)
        return DataElement(tag, vr, uids) if uids else None
    return DataElement(tag, vr, DUMMIES[vr])


_TEXT = frozenset(DUMMIES) - {"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "AT", "OB", "OD", "OF", "OL", "OV", "OW", "UN"}


def _items(header: Dataset, tag: BaseTag, patient: str) -> list[Dataset]:
    try:
        items = header[tag].value
        return [deidentified(item, patient) for item in items] if isinstance(items, Sequence) else []
    except Exception:  # no sequence, whatever the file says of it
        return []


def _other_uids(header: Dataset, tag: BaseTag) -> str | list[str]:
    try:
        value = header[tag].value
    except Exception:  # as above
        value = ""
    every = list(value) if isinstance(value, MultiValue) else [value]
    made = [other_uid(str(one)) for one in every if one]
    return made[0] if len(made) == 1 else made


def patient_of(header: Dataset, otherwise: str) -> str:
    """The pseudonym of whoever PatientID names, as the reader of DICOM has it; of `otherwise` if it names nobody."""
    try:
        identity = str(header.get("PatientID") or "").strip()
    except Exception:  # a value that is no text
        identity = ""
    return pseudonym(identity or otherwise)
