"""The directory of a replica's engine: what it is told, what it says and writes, what the agent must remember.

    <state>/engines/<replica uid>/
        spec.json     the engine's instructions for this life       written by the agent
        key           the secret of this life                       written by the agent
        life.json     which process this life is, and what was      written by the agent, read by the next one
        ready.json    where it listens                              written by the engine
        stdout.log    of this life; what was cut off it is in stdout.log.1
        stderr.log    likewise
        previous.*    spec.json and the logs of the life before

A directory appears and disappears as a whole; a file in it is old or new, never half.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from nodeagent.logs.files import LogFile
from nodeagent.logs.reading import Life, Stream
from nodeagent.model import Death, Exit, ProcessId
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.files import write_atomically
from roundhouse.kit.times import from_timestamp

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
TAIL_LINES = 20
TAIL_CHARACTERS = 500
_TAIL_BYTES = 64 * 1024
_PREVIOUS = "previous."
_PRIVATE = 0o600  # the environment of a deployment is in here, and the key


@dataclass(frozen=True, slots=True)
class Record:
    """What must be known of a replica after the agent's own death. Times are since 1970."""

    process: ProcessId | None = None  # None: no life, as far as is known, and nothing left of the last one
    is_dead: bool = False  # it has ended, and that was taken note of; what it started may be left
    restart_count: int = 0
    early_deaths: int = 0
    last_death: Death | None = None
    ready_time_s: float | None = None  # when this life became READY
    orphan_time_s: float | None = None
    is_stopping: bool = False


class Bundle:
    """The directory of one replica."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stdout, self.stderr = path / "stdout.log", path / "stderr.log"
        self._spec = path / "spec.json"

    @property
    def replica_uid(self) -> str:
        """Returns the uid of the replica, which names the directory."""
        return self.path.name

    def spec(self) -> engine_spec_pb2.EngineBundle:
        """Returns the engine's instructions; raises OSError or ValueError if they cannot be read."""
        text = self._spec.read_bytes()
        try:
            # An agent that was newer may have written more.
            spec = json_format.Parse(text, engine_spec_pb2.EngineBundle(), ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise ValueError(f"spec.json: {error}") from error
        if spec.replica_uid != self.replica_uid:
            raise ValueError(f"spec.json: it is of replica {spec.replica_uid!r}")
        return spec

    def key(self) -> bytes:
        """Returns the key of this life."""
        return (self.path / "key").read_bytes()

    def ready(self) -> engine_spec_pb2.EngineReady | None:
        """Returns what the engine said when it listened; None before. Raises ValueError if it is no such thing."""
        try:
            text = (self.path / "ready.json").read_bytes()
        except FileNotFoundError:
            return None
        try:
            return json_format.Parse(text, engine_spec_pb2.EngineReady(), ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise ValueError(f"ready.json: {error}") from error

    def record(self) -> Record:
        """Returns what the last agent remembered; raises OSError or ValueError if it cannot be read."""
        try:
            return _record_from(json.loads((self.path / "life.json").read_bytes()))
        except (KeyError, TypeError) as error:
            raise ValueError(f"life.json: {error!r}") from error

    def remember(self, record: Record) -> None:
        """Replaces what the next agent will know."""
        write_atomically(self.path / "life.json", json.dumps(asdict(record)).encode(), mode=_PRIVATE)

    def stderr_tail(self, hide: Callable[[str], str] = str) -> tuple[str, ...]:
        """Returns the last lines of the error stream, oldest first. hide: takes secrets out, before anything is cut."""
        with contextlib.suppress(OSError), self.stderr.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES)
            file.seek(start)
            lines = hide(file.read().decode(errors="replace")).splitlines()
            lines = lines[1:] if start and len(lines) > 1 else lines  # the first may have lost its beginning
            return tuple(line[:TAIL_CHARACTERS] for line in lines[-TAIL_LINES:])
        return ()

    def life(self, streams: Collection[Stream] = STREAMS) -> Life | None:
        """Returns the logs of the present life, or of the last one; None before the first."""
        return self._life(self._spec, "", streams)

    def previous_life(self, streams: Collection[Stream] = STREAMS) -> Life | None:
        """Returns the logs of the life before that; None if there was none."""
        return self._life(_previous(self._spec), _PREVIOUS, streams)

    def start_time_s(self, *, is_previous: bool = False) -> float:
        """Returns when a life was started, since 1970; 0 if that cannot be read."""
        path = _previous(self._spec) if is_previous else self._spec
        try:
            spec = json_format.Parse(path.read_bytes(), engine_spec_pb2.EngineBundle(), ignore_unknown_fields=True)
        except (OSError, json_format.ParseError):
            return 0.0
        return from_timestamp(spec.start_time)

    def trim_logs(self) -> None:
        """Keeps the logs of this life within their bounds. Raises OSError if one cannot be cut."""
        for path in (self.stdout, self.stderr):
            LogFile(path).trim()

    def keep_previous(self) -> None:
        """Makes of the present life, if a process of it ever ran, the one before; of that one nothing is left then."""
        if not (self.stdout.exists() or self.stderr.exists()):
            return
        before = _previous(self._spec)
        before.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            _link_or_copy(self._spec, before)  # until the next one is written, it is that of this life too
        for path in (self.stdout, self.stderr):
            LogFile(path).move_to(LogFile(_previous(path)))

    def _life(self, spec: Path, prefix: str, streams: Collection[Stream]) -> Life | None:
        try:
            stat = spec.stat()
        except FileNotFoundError:
            return None
        logs = tuple((each, LogFile(self.path / f"{prefix}{each}.log")) for each in STREAMS if each in streams)
        return Life((stat.st_ino, stat.st_mtime_ns), logs)  # each life writes the file anew


class Bundles:
    """The directories of all replicas of this node."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """Where they are."""
        return self._root

    def open(self) -> Sequence[Bundle]:
        """Returns the bundles that are there. What an agent left half made or half removed goes first."""
        self._root.mkdir(mode=0o700, exist_ok=True)
        for path in self._root.iterdir():
            if path.name.startswith("."):
                shutil.rmtree(path)
        return [Bundle(path) for path in sorted(self._root.iterdir()) if path.is_dir()]

    def find(self, replica_uid: str) -> Bundle | None:
        """Returns the bundle of a replica; None if it has none."""
        bundle = Bundle(self._root / replica_uid)
        is_ours = bundle.path.parent == self._root and bundle.path.name not in ("", "..")
        return bundle if is_ours and bundle.path.exists() else None

    def begin(self, spec: engine_spec_pb2.EngineBundle, key: bytes, record: Record) -> Bundle:
        """Prepares the directory of a replica for a new life, or makes it. The logs of the life before are kept."""
        bundle = Bundle(self._root / spec.replica_uid)
        if bundle.path.exists():
            (bundle.path / "ready.json").unlink(missing_ok=True)  # first: it would speak for a life that is over
            bundle.keep_previous()
            _fill(bundle, spec, key, record)
        else:
            fresh = Bundle(self._root / f".new-{uuid.uuid4().hex}")
            try:
                fresh.path.mkdir(mode=0o700)
                _fill(fresh, spec, key, record)
                fresh.path.rename(bundle.path)
            except OSError:
                shutil.rmtree(fresh.path, ignore_errors=True)  # half of it would only take room
                raise
        return bundle

    def remove(self, bundle: Bundle) -> None:
        """Removes a directory; a crash on the way leaves it whole or to be swept by the next `open`."""
        gone = self._root / f".gone-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            bundle.path.rename(gone)
            shutil.rmtree(gone)


def _fill(bundle: Bundle, spec: engine_spec_pb2.EngineBundle, key: bytes, record: Record) -> None:
    write_atomically(bundle.path / "key", key, mode=_PRIVATE)
    write_atomically(bundle.path / "spec.json", json_format.MessageToJson(spec).encode(), mode=_PRIVATE)
    bundle.remember(record)


def _link_or_copy(path: Path, to: Path) -> None:
    try:
        to.hardlink_to(path)  # a life is known by the file: whoever reads its logs goes on to its end
    except FileNotFoundError:
        raise
    except OSError:  # not every file system has links
        shutil.copy2(path, to)


def _previous(path: Path) -> Path:
    return path.with_name(_PREVIOUS + path.name)


def _record_from(said: dict[str, Any]) -> Record:
    known = {each.name: said[each.name] for each in fields(Record) if each.name in said}  # a newer agent may say more
    if known["process"] is not None:
        known["process"] = ProcessId(**known["process"])
    if known["last_death"] is not None:
        death = known["last_death"]
        known["last_death"] = Death(
            Exit(**death["exit"]), tuple(death["stderr_lines"]), death["time_s"], death["reason"]
        )
    return Record(**known)
