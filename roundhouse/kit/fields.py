"""Collects what is wrong with the fields of a request, so that one answer names it all."""

from __future__ import annotations

from roundhouse.kit.errors import FieldViolation, InvalidArgument

MAX_VIOLATIONS = 32  # more than anybody mends at once; a request of 4 MB can hold millions


class FieldCheck:
    """The first violations found in one request."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._has_more = False

    def require(self, holds: bool, field: str, description: str) -> bool:
        """Notes a violation of `field` unless it holds; returns whether it does. `description` ends with the cure."""
        if not holds and len(self._violations) == MAX_VIOLATIONS:
            self._has_more = True
        elif not holds:
            self._violations.append(FieldViolation(field, description))
        return holds

    def raise_if_any(self) -> None:
        """Raises one InvalidArgument that names every violation, or the first ones and that there are more."""
        if self._violations:
            named = [f"{each.field}: {each.description}" for each in self._violations]
            if self._has_more:
                named.append("there are more: mend these first")
            raise InvalidArgument("; ".join(named), fields=self._violations)


def invalid(field: str, description: str) -> InvalidArgument:
    """Returns the error for one bad field."""
    return InvalidArgument(f"{field}: {description}", fields=[FieldViolation(field, description)])
