"""Raw results: one JSON object a line, appended to a file that is named by date and commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]


class Records:
    """Keeps what a run gave, and writes each record as soon as it is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[Record] = []
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, **content: Any) -> None:
        """Adds a record."""
        record = {"kind": kind, **content}
        self.all.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_rounded(record), allow_nan=False) + "\n")


def read(path: Path) -> Sequence[Record]:
    """Returns the records of the last run in a file."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    last = max((number for number, record in enumerate(records) if record["kind"] == "run"), default=0)
    return records[last:]


def _rounded(value: Any) -> Any:
    """Returns a value without digits that mean nothing; what is no number becomes None."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
