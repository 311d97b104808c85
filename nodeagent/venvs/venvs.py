"""Gives engines the environments that they are to run in, built where they are not there yet."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nodeagent.aside import aside
from nodeagent.child import child
from nodeagent.process import end_session, identify
from nodeagent.shared import Shared
from nodeagent.venvs.folder import Folder
from nodeagent.venvs.recipe import Recipe, recipe_of
from roundhouse.v1.deployment_pb2 import VirtualEnv

BUILD_COMMAND = (sys.executable, "-m", "nodeagent.venvs.build")
Tell = Callable[[str], None]  # a line of the build


class NotBuilt(OSError):
    """There is no such environment here, and none can be made; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Venv:
    """An environment, kept from being deleted until it is closed, and by each process that was given the descriptor."""

    path: Path
    descriptor: int

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin/python"

    def close(self) -> None:
        """Lets go of it."""
        os.close(self.descriptor)


class Venvs:
    """The environments below a directory, for the Python of this process and what `environ` says of packages.

    needs: modules that can be imported in each of them, else it is not taken.
    """

    def __init__(self, root: Path, environ: Mapping[str, str], needs: Sequence[str]) -> None:
        self._root, self._environ, self._needs = root, environ, needs
        self._builds: Shared[str, [str]] = Shared("environment")

    async def ready(self, wanted: VirtualEnv, tell: Tell) -> Venv:
        """Returns an environment once it is there; raises NotBuilt and OSError. To be closed by the caller.

        All who want the same wait for one build, of which they are told the lines; cancelling the last of them ends it.
        """
        try:
            recipe = await aside(functools.partial(recipe_of, wanted, self._environ), "environment")
        except ValueError as error:
            wrong = str(error).splitlines()[0]
            raise NotBuilt(f"an environment was asked for that cannot be: {wrong}: correct packages") from error
        folder = Folder(self._root / recipe.key())
        while (venv := _take(folder)) is None:
            await self._builds.do(folder.path.name, functools.partial(self._build, recipe, folder), tell)
        return venv

    async def _build(self, recipe: Recipe, folder: Folder, say: Tell) -> None:
        """Runs the process that builds, which does not outlive the call."""
        told = {"folder": str(folder.path), "uv": self._uv(), "recipe": asdict(recipe), "needs": self._needs}
        identity, error = None, ""
        try:
            async with child(BUILD_COMMAND, self._environ) as process:
                identity = identify(process.pid)
                process.tell(json.dumps(told).encode())
                async for line in process.lines():
                    answer = json.loads(line)
                    error = answer.get("error", "")
                    if "line" in answer:
                        say(answer["line"])
        finally:
            if identity is not None:
                await end_session(identity, grace_s=0)  # what it ran, if it was killed itself
        if error:
            raise NotBuilt(f"the environment cannot be built: {error}")
        if process.exit_code:
            raise NotBuilt(f"the process that builds environments ended with {process.exit_code}: see {folder.log}")

    def _uv(self) -> str:
        beside = (Path(sys.executable).parent / "uv", Path(sysconfig.get_path("scripts")) / "uv")
        found = next((str(each) for each in beside if os.access(each, os.X_OK)), None)
        found = found or shutil.which("uv", path=self._environ.get("PATH"))
        if found is None:
            raise NotBuilt("the environment cannot be built, since there is no uv: install uv beside the node agent")
        return found


def _take(folder: Folder) -> Venv | None:
    """Returns an environment that is there; None if it is not, or is being deleted."""
    if not folder.env.exists():
        return None
    descriptor = folder.use(waits=False)
    if descriptor is None:
        return None
    if not folder.env.exists():
        os.close(descriptor)
        return None
    folder.touch()
    return Venv(folder.env, descriptor)
