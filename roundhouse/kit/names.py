"""Resource names such as `shelves/{shelf}/books/{book}`: built and taken apart by one pattern each."""

from __future__ import annotations

import re

from roundhouse.kit.fields import invalid

ID_RULE = "1 to 63 characters of [a-z0-9-], beginning with a letter and not ending with a hyphen"
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_MAX_SHOWN = 200  # characters; a message of megabytes helps nobody
_VARIABLE = re.compile(r"\{[a-z_]+\}")


def is_id(text: str) -> bool:
    """Tells whether `text` may stand as an id in a name; `ID_RULE` says it in words."""
    return _ID.match(text) is not None


class NamePattern:
    """A pattern such as `shelves/{shelf}`, with one variable for each id."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._regex = re.compile(_VARIABLE.sub("([^/]+)", pattern) + r"\Z")

    def format(self, *ids: object) -> str:
        """Returns the name with the ids filled in, in order."""
        left = iter(ids)
        return _VARIABLE.sub(lambda _: str(next(left)), self.pattern)

    def match(self, name: str) -> tuple[str, ...] | None:
        """Returns the ids of a name, unchecked; None if it has another shape."""
        found = self._regex.match(name)
        return None if found is None else found.groups()

    def parse(self, name: str, field: str = "name") -> tuple[str, ...]:
        """Returns the ids of a name.

        Raises InvalidArgument, naming `field`, if the shape is another or an id that is no number breaks the rule.
        """
        ids = self.match(name)
        shown = name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…"
        if ids is None:
            raise invalid(field, f'"{shown}" is malformed: use the form {self.pattern}')
        for each in ids:
            if not (is_id(each) or each.isdecimal()):
                raise invalid(field, f'"{each[:_MAX_SHOWN]}" in "{shown}" is not an id: use {ID_RULE}')
        return ids
