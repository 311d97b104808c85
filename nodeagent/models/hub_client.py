"""Talks with the Hugging Face hub, in a process of its own: `python -m nodeagent.models.hub_client look|fetch …`.

A process, because a download on a thread cannot be cancelled, and because the library keeps its settings for good. It
is the hub's own library, so it obeys HF_ENDPOINT, HF_TOKEN, the proxy variables and so on. The last line of its output
is JSON: the answer, or {"error": sentence}. It ends when its standard input is closed, that is with its agent at the
latest, and leaves no part of a file behind, and nothing at all of a look.

    look OWNER/NAME REVISION DIRECTORY   puts there what tells of the model: its configuration, and headers of weights
                                         with nothing behind them; answers {"commit": …, "fetch_bytes": …}
    fetch OWNER/NAME COMMIT CACHE        fetches into a cache what an engine needs; lines {"done": …, "total": …} in
                                         bytes come first; answers {"path": …}
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodeagent.models.hub_files import INDEX, small_files, weight_files
from roundhouse.kit.units import format_bytes
from roundhouse.kit.urls import redacted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PROGRESS_PERIOD_S = 1.0
_LOOK_TIMEOUT_S = 5.0  # for one answer of the hub; the agent ends a look that takes long as a whole
_HEADERS_AT_ONCE = 8
_QUERY = re.compile(r"(?<=\S)\?\S*=\S*")  # of an address, which may be signed
_PART = ".incomplete"
_SPARE_BYTES = 64 * 1024**2  # that a disk keeps free
# What is read of a tokenizer before it is here; the real one is checked once it is.
_TOKENIZER = b'{"model": {}}'


class Unfit(Exception):
    """The hub has no such model, or none that an engine can serve; the message says why, and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit status."""
    verb, repository, revision, place = arguments
    half_made = Path(place) if verb == "look" else None  # a fetch goes into a cache, where what came whole stays
    threading.Thread(target=_end_when_told, args=(half_made,), daemon=True).start()
    try:
        answer = {"look": look, "fetch": fetch}[verb](repository, revision, Path(place))
    except Exception as error:  # noqa: BLE001 - whatever the library raises becomes a sentence
        answer = {"error": redacted(explain(error, repository, revision))}
    _say(answer)
    return 1 if "error" in answer else 0


def look(repository: str, revision: str, directory: Path) -> dict[str, Any]:
    """Answers the command of that name."""
    api = _api()
    commit, sizes = _listing(api, repository, revision)
    small = [each for each in small_files(sizes.items()) if each in ("config.json", INDEX)]
    for name in small:
        _read_into(repository, commit, name, directory)
    weights = weight_files(sizes, _indexed(directory))
    if lacking := sorted(set(weights) - sizes.keys()):
        raise Unfit(f"the hub's {repository} lacks {lacking[0]}, which its index names: name another revision")

    def header(name: str) -> None:
        found = api.parse_safetensors_file_metadata(repository, name, revision=commit)
        tensors = {
            each: {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": list(one.data_offsets)}
            for each, one in found.tensors.items()
        }
        write_hollow(directory / name, tensors)

    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as threads:
        list(threads.map(header, weights))
    for name in set(small_files(sizes.items())) - set(small):
        (directory / name).write_bytes(_TOKENIZER)
    wanted = {*weights, *small_files(sizes.items())}
    return {"commit": commit, "fetch_bytes": sum(sizes[each] for each in wanted)}


def fetch(repository: str, commit: str, cache: Path) -> dict[str, Any]:
    """Answers the command of that name."""
    from huggingface_hub import hf_hub_download, snapshot_download

    api = _api()
    _, sizes = _listing(api, repository, commit)
    folder = _blobs(cache, repository).parent
    small = small_files(sizes.items())
    indexed: list[str] = []
    if INDEX in small:
        index = Path(hf_hub_download(repository, INDEX, revision=commit, cache_dir=cache))
        indexed = _indexed(index.parent)
    wanted = [*small, *weight_files(sizes, indexed)]
    snapshot = folder / "snapshots" / commit
    missing = {each: sizes.get(each, 0) for each in wanted if not (snapshot / each).exists()}
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    needed = sum(missing.values())
    if needed + _SPARE_BYTES > free:
        takes = (
            f"fetching {repository} takes {format_bytes(needed)}, and the disk of {cache} has {format_bytes(free)} left"
        )
        raise Unfit(f"{takes}: free some, or set HF_HOME of the node agent to a larger one")
    with _telling(_blobs(cache, repository), needed):
        path = snapshot_download(repository, revision=commit, cache_dir=cache, allow_patterns=list(missing) or wanted)
    with contextlib.suppress(Exception):  # for the comfort of who names no revision, without the hub
        if _listing(api, repository, "")[0] == commit:
            (folder / "refs").mkdir(exist_ok=True)
            (folder / "refs/main").write_text(commit)
    return {"path": path}


def write_hollow(path: Path, tensors: Mapping[str, Any]) -> None:
    """Writes a file of weights that has a header and, without taking room on a disk, nothing behind it."""
    header = json.dumps(tensors).encode()
    end = max((each["data_offsets"][1] for each in tensors.values()), default=0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(struct.calcsize("<Q") + len(header) + end)


def explain(error: Exception, repository: str, revision: str) -> str:
    """Returns a sentence that ends with the cure."""
    if isinstance(error, ImportError):
        return f"the hub cannot be asked about {repository} ({error}): install huggingface-hub beside the node agent"
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    at = f" at {revision}" if revision else ""
    if isinstance(error, Unfit):
        return str(error)
    if isinstance(error, errors.GatedRepoError):
        return f"{hub} lets only those fetch {repository} who may: set HF_TOKEN of the node agent to one of theirs"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{hub} has no revision{at} of {repository}: name a branch, a tag or a commit that is there"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{hub} has no {repository}, or shows it to some only: correct the name, or set HF_TOKEN of the node agent"
        )
    if isinstance(error, errors.NotASafetensorsRepoError | errors.SafetensorsParsingError):
        why = _short(error)
        return f"the weights of {repository}{at} at {hub} cannot be understood ({why}): name another revision"
    why = _short(error)
    return f"{hub} cannot be asked about {repository} ({why}): check the network of the node, or HF_ENDPOINT"


def _api() -> HfApi:
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return HfApi()


def _listing(api: HfApi, repository: str, revision: str) -> tuple[str, Mapping[str, int]]:
    """Returns the commit of a revision, and its files with their bytes."""
    info = api.model_info(repository, revision=revision or None, files_metadata=True, timeout=_LOOK_TIMEOUT_S)
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    if "config.json" not in sizes:
        raise Unfit(
            f"the hub's {repository} has no config.json, so it is no model that can be served: name another one"
        )
    if not any(each.endswith(".safetensors") and "/" not in each for each in sizes):
        raise Unfit(f"the hub's {repository} has no *.safetensors files: name a repository or a revision that has")
    return str(info.sha), sizes


def _read_into(repository: str, commit: str, name: str, directory: Path) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(repository, name, revision=commit, local_dir=directory, etag_timeout=_LOOK_TIMEOUT_S)


def _indexed(directory: Path) -> list[str]:
    """Returns the files that the index of weights names, if there is one."""
    try:
        index = json.loads((directory / INDEX).read_bytes())
        return sorted({str(each) for each in index["weight_map"].values()})
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unfit(f"{INDEX} at the hub cannot be understood ({_short(error)}): name another revision") from error


@contextlib.contextmanager
def _telling(blobs: Path, total: int) -> Iterator[None]:
    """Says for the block how much has come, by what lies in the cache."""
    before, over = _bytes_in(blobs), threading.Event()

    def tell() -> None:
        while True:
            _say({"done": max(0, min(total, _bytes_in(blobs) - before)), "total": total})
            if over.wait(PROGRESS_PERIOD_S):
                return

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _bytes_in(blobs: Path) -> int:
    found = 0
    for path in blobs.glob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            found += path.stat().st_size
    return found


def _blobs(cache: Path, repository: str) -> Path:
    return cache / ("models--" + repository.replace("/", "--")) / "blobs"


def _end_when_told(half_made: Path | None) -> None:
    while os.read(0, 1024):  # not through sys.stdin, whose lock a thread must not hold at the end of the process
        pass
    for path in _open_parts():
        path.unlink(missing_ok=True)  # the library names them anew each time, so that nobody would go on with one
    if half_made is not None:
        shutil.rmtree(half_made, ignore_errors=True)
    os._exit(1)


def _open_parts() -> list[Path]:
    """Returns the files that this very process has not fetched whole yet."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(each.readlink())
    return [each for each in found if each.name.endswith(_PART)]


def _say(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - the agent reads it


def _short(error: Exception) -> str:
    text = _QUERY.sub("", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
