"""What other packages bring, by entry points. It is looked for once, at the start."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from roundhouse.kit.errors import Usage

STRATEGIES_GROUP = "roundhouse.strategies"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")  # as the names of those that are built in


def strategies(
    builtin: Mapping[str, Callable[..., Any]], found: Iterable[EntryPoint] | None = None
) -> Mapping[str, Callable[..., Any]]:
    """Returns the strategies that are built in and those of other packages, by name.

    found: in place of those of the packages that are installed. Raises Usage for one whose name is malformed or taken,
    that cannot be loaded, or that cannot be called.
    """
    known = dict(builtin)
    plain = {_plain(name) for name in builtin}
    for point in sorted(entry_points(group=STRATEGIES_GROUP) if found is None else found, key=lambda each: each.name):
        where = f'the strategy "{point.name}" of the entry point {point.value}'
        if not _NAME.match(point.name):
            raise Usage(f"{where} is no name: use 1 to 63 characters of a-z, 0-9 and _, and begin with a letter")
        if _plain(point.name) in plain:
            raise Usage(f"{where} has a name that is taken: rename it, or uninstall one of them")
        try:
            strategy = point.load()
        except Exception as error:  # whatever importing somebody else's module may raise
            raise Usage(f"{where} cannot be loaded, {type(error).__name__}: {error}: mend or uninstall it") from error
        if not callable(strategy):
            raise Usage(f"{where} is a {type(strategy).__name__}: make it a function of a Candidate")
        known[point.name] = strategy
        plain.add(_plain(point.name))
    return known


def _plain(name: str) -> str:
    """Returns what spellings of a name have in common."""
    return name.replace("_", "")
