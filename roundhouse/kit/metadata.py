"""Metadata of a call, which comes as pairs and may repeat a key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def metadata_value(metadata: Iterable[Any] | None, key: str) -> str | bytes | None:
    """Returns the first value of `key`, bytes if the key ends in `-bin`; None if there is none."""
    return next((value for each, value in metadata or () if each == key), None)
