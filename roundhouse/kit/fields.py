"""Collects what is wrong with the fields of a request, so that one answer names it all."""

from __future__ import annotations

from roundhouse.kit.errors import FieldViolation, InvalidArgument


class FieldCheck:
    """The violations found so far in one request."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def require(self, holds: bool, field: str, description: str) -> bool:
        """Notes a violation of `field` unless it holds; returns whether it does. `description` ends with the cure."""
        if not holds:
            self._violations.append(FieldViolation(field, description))
        return holds

    def raise_if_any(self) -> None:
        """Raises one InvalidArgument that names every violation."""
        if self._violations:
            message = "; ".join(f"{each.field}: {each.description}" for each in self._violations)
            raise InvalidArgument(message, fields=self._violations)


def invalid(field: str, description: str) -> InvalidArgument:
    """Returns the error for one bad field."""
    return InvalidArgument(f"{field}: {description}", fields=[FieldViolation(field, description)])
