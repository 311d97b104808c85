"""Lines of results that long runs append, where they are asked to."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def tell(variable: str, result: Mapping[str, object]) -> None:
    """Prints a result, and appends it to the file that this variable names, if any, with the commit."""
    line = json.dumps({"commit": _commit(), **result})
    print(line)
    if name := os.environ.get(variable):
        with Path(name).open("a") as file:
            file.write(line + "\n")


def _commit() -> str:
    try:
        return subprocess.check_output(["git", "rev-parse", "--short=8", "HEAD"], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
