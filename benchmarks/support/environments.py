"""Makes the environment of a peer from its lock in requirements/, once per lock, Python and folder, as `make` does."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path


def python_of(name: str, root: Path, *, has_torch: bool = True) -> Path:
    """Returns the interpreter of the environment `bench-NAME`, made if it is not there; ours if `name` is empty."""
    if not name:
        return Path(sys.executable)
    directory, locks = root / ".venvs" / f"bench-{name}", root / "requirements"
    own, torch = locks / f"bench-{name}.txt", locks / "torch.txt"
    stamp = directory / f".made-{_key(directory, own, *([torch] if has_torch else []))}"
    python = directory / "bin" / "python"
    if not stamp.exists():
        print(f"environment: {directory.relative_to(root)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        _install(python, "--no-deps", "--require-hashes", "-r", str(own))
        if has_torch:
            _install(python, "-r", str(torch))
        stamp.touch()
    return python


def _install(python: Path, *arguments: str) -> None:
    # A lock names all that is used; what pip misses beyond it is left out on purpose.
    subprocess.run([python, "-m", "pip", "install", "-qqq", *arguments], check=True)


def _key(directory: Path, *locks: Path) -> str:
    told = hashlib.sha256(f"{sys.version} {directory}".encode())
    for lock in locks:
        told.update(lock.read_bytes())
    return told.hexdigest()[:16]
