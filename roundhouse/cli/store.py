"""`roundhouse store`: what a control plane keeps, copied into a file and taken back from one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from roundhouse.cli.output import console
from roundhouse.cli.session import json_option
from roundhouse.cli.units import count_of
from roundhouse.kit.errors import Usage
from roundhouse.kit.units import format_bytes

_MODULE = "controlplane.backups"  # as a process: the command line knows no component

_state_dir = click.option(
    "--state-dir",
    metavar="DIR",
    type=Path,
    help="Of the control plane; default ~/.local/state/roundhouse/controlplane, as its own.",
)


@click.group(short_help="Copies what a control plane keeps into a file, and takes it back.")
def store() -> None:
    """What a control plane keeps: deployments, placements, nodes, families, events. Both commands need its files."""


@store.command(short_help="Copies the store of a control plane into a file.")
@click.argument("file", type=Path)
@_state_dir
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@json_option
def backup(file: Path, state_dir: Path | None, force: bool, as_json: bool) -> None:
    """Copies the store of a control plane, running or not, into FILE, as it is at one moment.

    The key of secrets is not in it: keep secrets.key, or the file named with --secrets-key, somewhere else.
    """
    done = _run("backup", file, state_dir, force=force)
    if as_json:
        print(json.dumps(done, indent=2))
        return
    console().print(f"backed up to {done['destination']}: {_content(done)}, {format_bytes(done['size_bytes'])}")
    _say_secrets(done, "they are sealed with the control plane's key, which is not in the file: keep it elsewhere")


@store.command(short_help="Makes a backup the store of a control plane that does not run.")
@click.argument("file", type=Path)
@_state_dir
@click.option("--force", is_flag=True, help="Keep aside the store that is there.")
@json_option
def restore(file: Path, state_dir: Path | None, force: bool, as_json: bool) -> None:
    """Makes the backup FILE the store of a state directory of which no control plane runs; FILE stays.

    No engine is stopped by it: one that the backup does not know is kept for 10 minutes. What was deleted after the
    backup is wanted again.
    """
    done = _run("restore", file, state_dir, force=force)
    if as_json:
        print(json.dumps(done, indent=2))
        return
    out = console()
    out.print(f"restored to {done['destination']}: {_content(done)}; start the control plane")
    if done["kept_aside"]:
        out.print(f"what was there is kept in {done['kept_aside']}")
    _say_secrets(done, "start the control plane with their key, as secrets.key or with --secrets-key")


def _run(what: str, file: Path, state_dir: Path | None, *, force: bool) -> Mapping[str, Any]:
    """Returns what was done; raises Usage with what kept it from being done."""
    command: Sequence[str] = [
        *(sys.executable, "-m", _MODULE, what),
        *(() if state_dir is None else ("--state-dir", str(state_dir.absolute()))),
        *(("--force",) if force else ()),
        *("--", str(file.absolute())),
    ]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        lines = [line for line in ended.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise Usage(lines[-1].removeprefix("store: "))
    found: Mapping[str, Any] = json.loads(ended.stdout)
    return found


def _content(done: Mapping[str, Any]) -> str:
    count = count_of(len(done["deployments"]), "deployment")
    return f"{count} of cluster {done['cluster_id']}, revision {done['revision']}"


def _say_secrets(done: Mapping[str, Any], cure: str) -> None:
    if names := done["with_secrets"]:
        has = "has secrets" if len(names) == 1 else "have secrets"
        console(sys.stderr).print(f"{', '.join(names)} {has}: {cure}", style="yellow")
