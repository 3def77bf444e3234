"""What a mask says where nobody annotated; apart from `models.clip`, so that whoever decodes files needs no torch."""

UNKNOWN = 255
"""Mask value of a pixel nobody annotated. A frame is annotated if none of its pixels carries it."""
