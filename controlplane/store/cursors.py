"""Positions in a store as clients hold them: opaque, and worthless in another store or for another purpose."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import NoReturn

from roundhouse.kit.errors import TooLong
from roundhouse.v1 import errors_pb2

_REVISION = re.compile(r"[0-9]{1,19}\Z")  # as many digits as an int64 has


@dataclass(frozen=True, slots=True)
class Position:
    """A revision, and within a listing the last key that was seen."""

    revision: int
    key: str = ""


def format_cursor(epoch: str, kind: str, revision: int, key: str = "") -> str:
    """Returns the cursor of a position. `kind` says what it is for, for example `deployments-page`, without a slash."""
    return base64.urlsafe_b64encode(f"{epoch}/{kind}/{revision}/{key}".encode()).decode().rstrip("=")


def parse_cursor(epoch: str, kind: str, cursor: str) -> Position:
    """Returns the position of a cursor; raises TooLong (RELIST) if it is malformed, of another store or kind."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True).decode()
    except (binascii.Error, ValueError):
        _relist(kind)
    parts = text.split("/", 3)
    if len(parts) != 4 or parts[:2] != [epoch, kind] or _REVISION.match(parts[2]) is None:
        _relist(kind)
    return Position(int(parts[2]), parts[3])


def _relist(kind: str) -> NoReturn:
    raise TooLong(
        f"the {kind} cursor is malformed or of another store: list again and go on from there",
        reason=errors_pb2.ERROR_REASON_RELIST,
    )
