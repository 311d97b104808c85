"""Where a process is in native code, by Linux's `perf`. Without it, or where it may not look, nothing is known."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LOOKS_PER_S = 499
_LINE = re.compile(r"^\s*(?P<percent>[\d.]+)%\s+\[(?P<mode>.)\]\s+(?P<symbol>.+?)\s{2,}(?P<library>\S+)")


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Looks at this process; behind the block, what is yielded has the share of each function, all threads together."""
    shares: dict[str, float] = {}
    perf = shutil.which("perf")
    if perf is None:
        yield shares
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "looks")
        command = [perf, "record", "-q", "-o", str(path), "-F", str(LOOKS_PER_S), "-p", str(os.getpid())]
        looking = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield shares
        finally:
            looking.terminate()
            looking.wait()
        shares.update(_shares(perf, path))


def _shares(perf: str, path: Path) -> Mapping[str, float]:
    command = [perf, "report", "--stdio", "-i", str(path), "--sort", "symbol,dso"]
    report = subprocess.run(command, capture_output=True, text=True, check=False)
    found = filter(None, map(_LINE.match, report.stdout.splitlines()))
    return {f"{Path(each['library']).name} {each['symbol']}": float(each["percent"]) / 100 for each in found}
