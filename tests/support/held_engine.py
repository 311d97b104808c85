"""Holds a real engine in the middle of its start, at the moment at which it opens a file, until it is ended.

Nothing of the engine is replaced: Python tells a hook of every file that it opens, those of modules among them,
and the hook waits. An engine finds it by the PYTHONPATH of its deployment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster import eventually

_HOOK = """
import os, re, sys, time

_AT, _FOLDER = re.compile(os.environ["HELD_AT"]), os.environ["HELD_IN"]

def hold(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and _AT.search(arguments[0]):
        os.close(os.open(os.path.join(_FOLDER, "reached"), os.O_CREAT | os.O_WRONLY))
        while True:
            time.sleep(60)

sys.addaudithook(hold)
"""


@dataclass(frozen=True)
class Hold:
    """Where an engine is held, as a pattern of the path that it opens there."""

    folder: Path
    pattern: str

    def env(self) -> dict[str, str]:
        """Returns what the deployment tells its engines; makes the hook."""
        self.folder.mkdir(parents=True)
        (self.folder / "sitecustomize.py").write_text(_HOOK)
        return {"PYTHONPATH": str(self.folder), "HELD_AT": self.pattern, "HELD_IN": str(self.folder)}

    async def reached(self) -> None:
        """Returns when an engine is held."""
        await eventually((self.folder / "reached").exists, f"an engine opens {self.pattern}")
