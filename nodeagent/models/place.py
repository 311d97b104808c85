"""Finds where the files of a model lie on this node. Blocks; call it on a thread that may hang with a file system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nodeagent.models.cache import HubCache, NotCached, lacking_words, missing_files
from roundhouse.v1.deployment_pb2 import ModelSource


class NotWhole(NotCached):
    """Some of its files are there."""

    def __init__(self, directory: Path, missing: Sequence[str]) -> None:
        super().__init__(lacking_words(directory, missing))
        self.missing = missing


def find_model(source: ModelSource, cache: HubCache) -> Path:
    """Returns the directory of a path, or of a repository in the cache.

    Raises NotCached, with where was looked, NotWhole if files of a repository are missing, and OSError.
    """
    if source.WhichOneof("source") == "repository":
        directory = cache.find(source.repository.id, source.repository.revision).path
        if missing := missing_files(directory):
            raise NotWhole(directory, missing)
        return directory
    directory = Path(source.path)
    if not directory.is_absolute():
        raise NotCached(f'the path "{directory}" of the model is not absolute')
    if not directory.is_dir():
        raise NotCached(f"there is no directory {directory}")
    return directory
