"""`python -m controlplane.backups`: the store of a control plane, copied into a file and taken back from one.

Writes one JSON object with what was done. Exit status: 0 done; 2 refused, with one line that says why.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from controlplane import wire
from controlplane.cluster import later_term
from controlplane.config import STORE, Parser, default_state_dir
from controlplane.store.copies import begin_anew, copy_store, files_of, read_copy
from controlplane.store.protocol import Listing
from roundhouse.internal.v1.store_pb2 import ClusterRecord, DeploymentRecord
from roundhouse.kit import process
from roundhouse.kit.errors import Usage
from roundhouse.kit.files import own_directory, sync

NAME = "store"


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied, from where to where."""

    source: str
    destination: str
    cluster_id: str
    revision: int
    deployments: tuple[str, ...]
    with_secrets: tuple[str, ...]  # those of the deployments that have any: the key is not in the copy
    size_bytes: int
    kept_aside: str = ""  # the store that was there before


def main() -> None:
    """Does what the command line says and ends the process."""
    sys.exit(process.run(lambda _: _run(sys.argv[1:], os.environ), NAME))


def back_up(state_dir: Path, to: Path, *, replaces: bool = False) -> Copied:
    """Copies the store of a control plane, running or not, into a file; raises Usage."""
    store = state_dir / STORE
    if not store.exists():
        raise Usage(f"{state_dir} has no store{_meant(state_dir)}: name the control plane's with --state-dir")
    if to.exists() and (not replaces or to.samefile(store)):
        why = "is the store itself" if to.samefile(store) else "is there already"
        raise Usage(f"{to} {why}: choose another file{'' if to.samefile(store) else ', or replace it with --force'}")
    copy_store(store, to)
    return _copied(store, to, to)


def restore(backup: Path, state_dir: Path, *, now_s: float, replaces: bool = False) -> Copied:
    """Makes a backup the store of a state directory of which no control plane is running; raises Usage.

    The restored store has a later term than any before it, so that agents obey it, and a history of its own.
    replaces: a store that is there is kept aside, else it is a reason to refuse.
    """
    restored = _cluster(backup)
    with own_directory(state_dir, "control plane"):
        store, before = state_dir / STORE, None
        present = files_of(store)
        if present:
            before = _cluster_or_none(store)
            if not replaces:
                raise Usage(f"{state_dir} has a store, {_whose(before, restored)}: keep it aside with --force")
        fresh = state_dir / f".{STORE}.restored"
        try:
            copy_store(backup, fresh)
            record = later_term(restored, [before] if before is not None else [], now_s)
            begin_anew(fresh, {wire.CLUSTER_KEY: record.SerializeToString()})
            sync(fresh)
            aside = _keep_aside(store, before is not None, now_s) if present else None
            fresh.replace(store)
            sync(state_dir)
        finally:
            fresh.unlink(missing_ok=True)
        return replace(_copied(backup, store, store), kept_aside="" if aside is None else str(aside))


def _keep_aside(store: Path, is_whole: bool, now_s: float) -> Path:
    """Returns where the store is now that was there; nothing of it is left that could be mixed up with another."""
    stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = store.with_name(f"{STORE}.replaced-{stamp}")
    files = files_of(store)
    if aside.exists():
        raise Usage(f"{aside} is there already: try again in a second")
    if is_whole:
        copy_store(store, aside)  # one file, which can be restored in turn
        for each in files:
            if each != store:  # what replaces the store must find no journal of it
                each.unlink()
        return aside
    for each in files:
        each.replace(each.with_name(each.name.replace(STORE, aside.name)))
    return aside


def _cluster(path: Path) -> ClusterRecord:
    entries = {each.key: each.value for each in read_copy(path, wire.CLUSTER_KEY).entries}
    if wire.CLUSTER_KEY not in entries:
        raise Usage(f"{path} is of no cluster, since no control plane ever used it: choose another backup")
    return ClusterRecord.FromString(entries[wire.CLUSTER_KEY])


def _cluster_or_none(store: Path) -> ClusterRecord | None:
    try:
        return _cluster(store)
    except Usage:
        return None


def _whose(before: ClusterRecord | None, restored: ClusterRecord) -> str:
    if before is None:
        return "which cannot be read"
    if before.cluster_id == restored.cluster_id:
        return f"of the same cluster {before.cluster_id}, and what was written since the backup would be missing"
    return f"of cluster {before.cluster_id}, and the backup is of {restored.cluster_id}"


def _copied(source: Path, to: Path, copy: Path) -> Copied:
    listing = read_copy(copy, wire.DEPLOYMENTS)
    records = _records(listing)
    return Copied(
        source=str(source),
        destination=str(to),
        cluster_id=_cluster(copy).cluster_id,
        revision=listing.revision,
        deployments=tuple(records),
        with_secrets=tuple(name for name, each in records.items() if each.sealed_env),
        size_bytes=copy.stat().st_size,
    )


def _records(listing: Listing) -> Mapping[str, DeploymentRecord]:
    return {
        each.key.removeprefix(wire.DEPLOYMENTS): DeploymentRecord.FromString(each.value) for each in listing.entries
    }


def _meant(state_dir: Path) -> str:
    """Returns a hint for those who name the directory that they gave to `roundhouse up`."""
    inner = state_dir / "controlplane"
    return f", but {inner} has one" if (inner / STORE).exists() else ""


async def _run(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    parsed = _parser(environ).parse_args(arguments)
    file, state_dir = parsed.file.absolute(), parsed.state_dir.absolute()
    if parsed.what == "backup":
        done = await asyncio.to_thread(back_up, state_dir, file, replaces=parsed.force)
    else:
        done = await asyncio.to_thread(restore, file, state_dir, now_s=time.time(), replaces=parsed.force)
    sys.stdout.write(json.dumps(asdict(done)) + "\n")


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = Parser(prog="controlplane.backups", description="Copies the store of a control plane, and takes it back.")
    parser.add_argument("what", choices=("backup", "restore"))
    parser.add_argument("file", type=Path, metavar="FILE")
    default = default_state_dir(environ)
    parser.add_argument("--state-dir", type=Path, default=default, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="replace the file, or keep the store that is there aside")
    return parser


if __name__ == "__main__":
    main()
