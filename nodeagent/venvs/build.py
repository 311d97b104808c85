"""Builds one environment, in a process of its own: `python -m nodeagent.venvs.build`.

A process, because it waits for locks and for uv, and can be ended whatever it does. The first line of its standard
input is JSON: the recipe, and where to; nothing of it is on a command line, where others could read the password of an
index. Each line of its output is JSON: {"line": …} for what uv says, and {"error": sentence} last, if there is one. It
ends when its standard input is closed, that is with its agent at the latest, and leaves nothing half made behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nodeagent.venvs.commands import Commands, Log, Unbuildable, say
from nodeagent.venvs.folder import Folder
from nodeagent.venvs.recipe import Recipe, distributions
from nodeagent.venvs.words import lacks

INHERITED = "roundhouse_inherited.pth"
_LET_GO_S = 3.0  # for removing what is half made, when it is told to end
_PIN = re.compile(r"^ \+ ([A-Za-z0-9._-]+==\S+)")  # what uv would install


def main() -> int:
    """Builds what the standard input says; returns the exit status."""
    said = json.loads(sys.stdin.buffer.readline())
    folder, commands = Folder(Path(said["folder"])), Commands(said["uv"], Log(Path(said["folder"]) / "build.log"))
    threading.Thread(target=_end_when_told, args=(commands,), daemon=True).start()
    try:
        build(Recipe(**_tuples(said["recipe"])), folder, commands, said["needs"])
    except Unbuildable as error:
        say({"error": str(error)})
        return 1
    except OSError as error:
        full = "free some of the disk, or give the node agent another --venv-dir"
        cure = full if error.errno == errno.ENOSPC else "see that the node agent may write there"
        say({"error": f"{error.filename or folder.path}: {error.strerror}: {cure}"})
        return 1
    finally:
        commands.done.set()
    return 0


def build(recipe: Recipe, folder: Folder, commands: Commands, needs: Sequence[str]) -> None:
    """Makes the environment unless it is there; waits for who else makes it. Raises Unbuildable and OSError."""
    using = folder.use(waits=True)
    assert using is not None
    try:
        with folder.building():
            folder.touch()
            if folder.env.exists():
                return
            commands.log.begin()
            new = folder.path / f".new-{uuid.uuid4().hex}"
            try:
                _fill(new, recipe, commands)
                _check(new, recipe, commands, needs)
                new.rename(folder.env)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    finally:
        os.close(using)


def _fill(new: Path, recipe: Recipe, commands: Commands) -> None:
    environ = {"UV_DEFAULT_INDEX": recipe.index_url} if recipe.index_url else {}
    commands.uv("venv", "--quiet", "--relocatable", "--no-project", "--python", recipe.python, str(new), cwd=new.parent)
    [packages] = new.glob("lib/python*/site-packages")
    asked, bounds = new / "packages.txt", new / "constraints.txt"
    asked.write_text("".join(f"{each}\n" for each in recipe.packages))
    bounds.write_text("".join(f"{each}\n" for each in recipe.constraints))
    bounded = ("-c", str(bounds)) if recipe.constraints else ()
    links = [part for each in recipe.find_links for part in ("--find-links", each)]

    def install(what: Path, *options: str) -> Sequence[str]:
        arguments = ("pip", "install", "--python", str(new / "bin/python"), *links, *options, "-r", str(what))
        return commands.uv(*arguments, cwd=new, environ=environ)

    if recipe.packages and recipe.inherited is None:
        install(asked, *bounded)
    elif recipe.packages:
        with _mirrored(packages, recipe.inherited or ()):
            said = install(asked, *bounded, "--dry-run")
        pins = new / "pins.txt"
        pins.write_text("".join(f"{found[1]}\n" for each in said if (found := _PIN.match(each))))
        if pins.stat().st_size:
            install(pins, "--no-deps")  # what they need beside is inherited, in a version that will do
    for name, directory in recipe.own:
        if (packages / name).exists():
            raise Unbuildable(f"packages bring a module {name}, which is the engine's own: leave out the one that does")
        (packages / name).symlink_to(directory)
    if recipe.inherited is not None:
        # Behind its own. Not as bare paths: packages that are installed there as links have files of this kind.
        lines = [f"import site; site.addsitedir({each!r})\n" for each in recipe.inherited]
        (packages / INHERITED).write_text("".join(lines))


@contextlib.contextmanager
def _mirrored(packages: Path, inherited: Sequence[str]) -> Iterator[None]:
    """Lets uv see the inherited packages as installed for the block, without touching where they are."""
    mirrors = []
    try:
        for path in distributions(inherited):
            if (path / "METADATA").is_file():
                mirror = packages / path.name
                mirror.mkdir()
                mirrors.append(mirror)
                (mirror / "METADATA").symlink_to(path / "METADATA")
        yield
    finally:
        for mirror in mirrors:
            shutil.rmtree(mirror)


def _check(new: Path, recipe: Recipe, commands: Commands, needs: Sequence[str]) -> None:
    """Raises Unbuildable unless an engine finds there what it needs. Leaves compiled what that is."""
    command = [str(new / "bin/python"), "-P", "-c", f"import {', '.join(needs)}"]
    say({"line": "looking whether an engine can run in it"})
    status, lines = commands.run(command, cwd=new, tells=False)
    if status:
        raise Unbuildable(lacks(lines, inherits=recipe.inherited is not None))


def _end_when_told(commands: Commands) -> None:
    # Not through `sys.stdin`: its lock would be held for good, and wanted when the interpreter is taken down.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    commands.end()
    commands.done.wait(_LET_GO_S)
    os._exit(1)  # if it waits for a lock, there is nothing to remove


def _tuples(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: _frozen(value) for name, value in recipe.items()}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
