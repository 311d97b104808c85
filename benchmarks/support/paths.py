"""Where the benchmarks keep what they make."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from benchmarks.support.machine import commit

ROOT = Path(__file__).parents[2]
MODELS_DIRECTORY = ROOT / "benchmarks" / ".models"
LOGS_DIRECTORY = ROOT / "benchmarks" / ".logs"
RESULTS_DIRECTORY = ROOT / "benchmarks" / "results"


def result_path(directory: Path, name: str) -> Path:
    """Returns the file of today's raw results of a benchmark, at the commit that is checked out."""
    return directory / f"{name}-{datetime.now(UTC):%Y-%m-%d}-{commit(ROOT).replace('+', '-dirty')}.jsonl"
