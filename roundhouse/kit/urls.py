"""Addresses with a user and a password in them, which are shown to nobody."""

from __future__ import annotations

import re

HIDDEN = "***"
_SECRET = re.compile(r"(?<=://)[^/\s]*@")  # up to the last @ before a path: a password may hold others


def redacted(text: str) -> str:
    """Returns a text with `***` in place of the user and the password of every URL in it."""
    return _SECRET.sub(HIDDEN + "@", text)
