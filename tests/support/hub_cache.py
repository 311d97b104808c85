"""A cache as the libraries of the Hugging Face hub lay it out, made by a test."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40


def cache_model(root: Path, repository: str, files: Path, *, commit: str = COMMIT, reference: str = "main") -> Path:
    """Puts the files of a directory into the cache, as links to blobs; returns the snapshot."""
    folder = root / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for part in (snapshot, folder / "blobs", folder / "refs"):
        part.mkdir(parents=True, exist_ok=True)
    for path in files.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, folder / "blobs" / digest)
        (snapshot / path.name).symlink_to(Path("../../blobs") / digest)
    (folder / "refs" / reference).parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / reference).write_text(commit)
    return snapshot
