"""The cache that libraries of the Hugging Face hub keep: what is in it, where a repository lies, and how it is deleted.

    <root>/models--<owner>--<name>/
        refs/<branch or tag>             holds a commit
        snapshots/<commit>/<file>        a link to ../../blobs/<digest>, or the file itself where there are no links
        blobs/<digest>                   a file; `<digest>.incomplete` while it is being fetched

Blocks; call it on a thread that may hang with a file system. Nothing outside of the root is ever deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_PREFIX = "models--"
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
MAX_CACHED = 1024  # a report goes up every second
MAX_REFERENCES = 16
_MAX_REPOSITORY, _MAX_REFERENCE = 200, 100  # characters, as in the contract
_MAX_SAID = 5  # revisions, or files, that a message names


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a repository at one commit."""

    repository: str
    commit: str
    path: Path


@dataclass(frozen=True, slots=True)
class Cached:
    """What there is to say of a snapshot."""

    repository: str
    commit: str
    references: tuple[str, ...]
    size_bytes: int
    file_count: int
    last_used_time_s: float  # since 1970


class NotCached(FileNotFoundError):
    """The cache does not have it; the message says where was looked."""


class Kept(Exception):
    """It is not deleted; the message says why."""


def cache_root(environ: Mapping[str, str]) -> Path:
    """Returns where the hub's own libraries, started with this environment, keep what they fetch."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return _expanded(environ[variable])
    if environ.get("HF_HOME"):
        return _expanded(environ["HF_HOME"]) / "hub"
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(base) / "huggingface/hub"


class HubCache:
    """The cache below one folder, which need not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, repository: str, revision: str) -> Snapshot:
        """Returns where a repository lies; raises NotCached, and OSError if the cache cannot be read.

        revision: a branch, a tag or a whole commit; `main` if empty.
        """
        folder = self._folder(repository)
        if not folder.is_dir():
            raise NotCached(f"the cache {self.root} has no {folder.name}")
        wanted = revision or "main"
        commit = wanted if _COMMIT.match(wanted) else _reference(folder, wanted)
        there = sorted(each.name for each in _snapshots(folder))
        if commit is None or commit not in there:
            known = ", ".join([*_references(folder), *there][:_MAX_SAID]) or "nothing"
            raise NotCached(f"the cache {folder} has no revision {wanted}, it has {known}")
        return Snapshot(repository, commit, folder / "snapshots" / commit)

    def has(self, repository: str, commit: str) -> bool:
        """Tells whether there is anything of a snapshot."""
        return (self._folder(repository) / "snapshots" / commit).exists()

    def give_up(self, repository: str, commit: str) -> None:
        """Deletes what has come of a snapshot, unless somebody is still fetching from that repository."""
        folder = self._folder(repository)
        parts = set((folder / "blobs").glob("*.incomplete"))
        if parts and parts & _open_files():
            return
        self.delete(repository, commit)
        for part in parts:
            part.unlink(missing_ok=True)
        if folder.is_dir() and not folder.is_symlink() and not _snapshots(folder):
            shutil.rmtree(folder)

    def list(self) -> Sequence[Cached]:
        """Returns what is there, by repository and commit, at most MAX_CACHED."""
        found: list[Cached] = []
        for snapshot in self._all():
            if len(found) == MAX_CACHED:
                break
            cached = _describe(snapshot)
            if cached is not None:
                found.append(cached)
        return found

    def delete(self, repository: str, commit: str) -> None:
        """Deletes a snapshot, with the blobs that no other one has and what points to it; done if it is not there.

        Raises Kept for what lies, or leads, outside of the cache, and OSError.
        """
        folder = self._folder(repository)
        if not _COMMIT.match(commit):
            raise Kept(f"{commit[:100]} is no commit")
        snapshot = folder / "snapshots" / commit
        if not os.path.lexists(snapshot):
            return
        inner = [folder / name for name in ("snapshots", "blobs", "refs")]
        if any(each.is_symlink() for each in (folder, *inner, snapshot)):
            raise Kept(f"{snapshot} is reached over a link, so it may lie outside of the cache: delete it by hand")
        others = [each for each in _snapshots(folder) if each.name != commit]
        if not others:
            shutil.rmtree(folder)
            return
        shared = {blob for each in others for blob in _blobs(folder, each)}
        for name, points_to in _pointers(folder):
            if points_to == commit:
                (folder / "refs" / name).unlink(missing_ok=True)
        orphans = _blobs(folder, snapshot) - shared
        shutil.rmtree(snapshot)
        for blob in orphans:
            blob.unlink(missing_ok=True)

    def holds(self, path: Path, repository: str, commit: str) -> bool:
        """Tells whether a path leads into a snapshot."""
        snapshot = self._folder(repository) / "snapshots" / commit
        return path.is_relative_to(snapshot) or path.resolve().is_relative_to(snapshot.resolve())

    def _folder(self, repository: str) -> Path:
        parts = repository.split("/")
        if not _is_repository(repository):
            raise NotCached(f'"{repository[:200]}" is no repository')
        return self.root / (_PREFIX + "--".join(parts))

    def _all(self) -> Iterator[Snapshot]:
        for folder in sorted(self.root.glob(_PREFIX + "*")) if self.root.is_dir() else []:
            repository = folder.name.removeprefix(_PREFIX).replace("--", "/")
            if _is_repository(repository):
                for each in sorted(_snapshots(folder)):
                    yield Snapshot(repository, each.name, each)


def _is_repository(name: str) -> bool:
    parts = name.split("/")
    return len(parts) <= 2 and len(name) <= _MAX_REPOSITORY and all(map(_PART.match, parts))


def missing_files(directory: Path) -> Sequence[str]:
    """Returns the files that an engine needs and that are not there, or are links to nowhere."""
    missing = [] if (directory / "config.json").exists() else ["config.json"]
    missing += [] if any((directory / each).exists() for each in _TOKENIZERS) else ["tokenizer.json"]
    weights = _weights(directory)
    missing += sorted(each for each in weights if not (directory / each).exists())
    return missing


def lacking_words(directory: Path, missing: Sequence[str]) -> str:
    """Returns a sentence that says which files a directory lacks."""
    named = ", ".join(missing[:_MAX_SAID])
    more = f" and {len(missing) - _MAX_SAID} more" if len(missing) > _MAX_SAID else ""
    return f"{directory} is not whole: it lacks {named}{more}"


def _weights(directory: Path) -> set[str]:
    """Returns the files of weights that belong there, as far as that can be told."""
    try:
        index = json.loads((directory / _INDEX).read_bytes())
        return {str(each) for each in index["weight_map"].values() if "/" not in str(each)}
    except FileNotFoundError:
        found = {each.name for each in directory.glob("*.safetensors")}
        return found or {"model.safetensors"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()  # who reads the model says what is wrong with it


def _open_files() -> set[Path]:
    """Returns what any process has open, as far as this one may know."""
    found = set()
    for each in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            found.add(each.readlink())
    return found


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))  # noqa: PTH111 - works without a home


def _snapshots(folder: Path) -> list[Path]:
    try:
        return [each for each in (folder / "snapshots").iterdir() if _COMMIT.match(each.name) and each.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _pointers(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields branches and tags, which may hold slashes, with the commits that they point to."""
    refs = folder / "refs"
    for path in sorted(refs.rglob("*")) if refs.is_dir() else []:
        if path.is_file():
            yield str(path.relative_to(refs)), path.read_text(errors="replace").strip()


def _references(folder: Path) -> list[str]:
    return [name for name, _ in _pointers(folder)]


def _reference(folder: Path, name: str) -> str | None:
    return next((commit for each, commit in _pointers(folder) if each == name), None)


def _blobs(folder: Path, snapshot: Path) -> set[Path]:
    """Returns the blobs of this very repository to which the files of a snapshot lead."""
    blobs = (folder / "blobs").resolve()
    targets = {path.resolve() for path in snapshot.rglob("*") if path.is_symlink()}
    return {each for each in targets if each.parent == blobs}


def _describe(snapshot: Snapshot) -> Cached | None:
    """Returns what there is to say; None if it went away meanwhile, or cannot be read."""
    try:
        files = [path.stat() for path in snapshot.path.rglob("*") if path.is_file()]
        own = [name for name, commit in _pointers(snapshot.path.parents[1]) if commit == snapshot.commit]
        own = [each for each in own if len(each) <= _MAX_REFERENCE]
        return Cached(
            repository=snapshot.repository,
            commit=snapshot.commit,
            references=tuple(own[:MAX_REFERENCES]),
            size_bytes=sum(each.st_size for each in files),
            file_count=len(files),
            last_used_time_s=max((max(each.st_atime, each.st_mtime) for each in files), default=0.0),
        )
    except OSError:
        return None
