"""Environments are built once for all who want the same, appear as a whole, and stay as they are."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import engines as own
from nodeagent.venvs.folder import Folder, folders
from nodeagent.venvs.venvs import NotBuilt, Venv, Venvs
from roundhouse.v1.deployment_pb2 import VirtualEnv
from tests.support.wheels import Mute, mute_index, write_wheel
from tests.unit.nodeagent.venvs.conftest import Make

pytestmark = pytest.mark.slow  # processes of their own

PATIENCE_S = 60.0
OWN = os.path.realpath(own.__file__)


def ask(wheels: Path, *packages: str, **more: object) -> VirtualEnv:
    return VirtualEnv(packages=packages, find_links=[str(wheels)], **more)  # type: ignore[arg-type]


def ignore(line: str) -> None:
    pass


async def say(venv: Venv, code: str) -> str:
    """Returns what the Python of an environment prints."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        str(venv.python), "-P", "-c", code, stdout=subprocess.PIPE, env=environ, cwd="/"
    )
    said, _ = await process.communicate()
    return said.decode().strip()


async def ready(venvs: Venvs, wanted: VirtualEnv) -> Venv:
    async with asyncio.timeout(PATIENCE_S):
        return await venvs.ready(wanted, ignore)


def left(tmp_path: Path) -> Sequence[str]:
    """Returns what is there of environments beside locks and logs."""
    return [
        each.name
        for folder in folders(tmp_path / "venvs")
        for each in folder.path.iterdir()
        if each.name not in ("lock", "build.lock", "build.log")
    ]


def only_folder(tmp_path: Path) -> Folder:
    [folder] = folders(tmp_path / "venvs")
    return folder


async def nobody_in(folder: Folder) -> None:
    """Returns when no process holds the folder."""
    with (folder.path / "lock").open() as lock:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)


async def test_packages_of_two_environments_are_in_two_versions_and_both_see_the_engine(
    make: Make, wheels: Path
) -> None:
    venvs = make()
    for version in ("1.0", "2.0"):
        venv = await ready(venvs, ask(wheels, f"acme=={version}"))
        with contextlib.closing(venv):
            assert await say(venv, "import acme; print(acme.VERSION)") == version
            engines = await say(venv, "import engines, os; print(os.path.realpath(engines.__file__))")
            assert engines == OWN


async def test_what_is_inherited_stands_behind_what_the_environment_has_and_is_not_installed_again(
    make: Make, wheels: Path, tmp_path: Path
) -> None:
    write_wheel(wheels, "jinja2", "99.0")
    venvs = make(needs=("engines.config",))
    with contextlib.closing(await ready(venvs, ask(wheels, "templates"))) as venv:
        versions = "from importlib.metadata import version as v; print(v('templates'), v('jinja2'))"
        before = (await say(venv, versions)).split()
        assert before[0] == "1.0"
        assert before[1] != "99.0", "what the agent has will do"
        assert [each.name for each in venv.path.glob("lib/python*/site-packages/*.dist-info")] == [
            "templates-1.0.dist-info"
        ]
    with contextlib.closing(await ready(venvs, ask(wheels, "templates", "jinja2>=99"))) as venv:
        assert await say(venv, versions) == "1.0 99.0"


async def test_without_inheritance_nothing_else_is_there_but_the_engine(make: Make, wheels: Path) -> None:
    with contextlib.closing(await ready(make(), ask(wheels, "coyote", inherit=False))) as venv:
        assert await say(venv, "import acme, engines; print(acme.VERSION)") == "1.0"
        assert await say(venv, "from importlib.util import find_spec as f; print(f('grpc'), f('torch'))") == "None None"


async def test_an_environment_in_which_no_engine_can_run_is_refused_with_what_it_lacks(
    make: Make, wheels: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotBuilt, match=r"No module named '.+'\): add it to packages, or set inherit"):
        await ready(make(needs=("engines.__main__",)), ask(wheels, "acme", inherit=False))
    assert left(tmp_path) == []


async def test_all_who_want_the_same_wait_for_one_build_of_one_agent_or_of_two(
    make: Make, wheels: Path, tmp_path: Path
) -> None:
    agents = [make(), make()]
    wanted = ask(wheels, "acme==2.0")
    got = await asyncio.gather(*(ready(each, wanted) for each in (*agents, *agents)))
    assert len({each.path for each in got}) == 1
    assert left(tmp_path) == ["env"]
    log = only_folder(tmp_path).log.read_text()
    assert log.count("+ acme==2.0") == 2, "once as what is lacking, once as what was installed"
    for each in got:
        each.close()


async def test_an_environment_that_is_there_is_taken_as_it_is(make: Make, wheels: Path, tmp_path: Path) -> None:
    wanted = ask(wheels, "acme")
    (await ready(make(), wanted)).close()
    built = only_folder(tmp_path).env.stat().st_ctime_ns
    write_wheel(wheels, "acme", "3.0")
    lines: list[str] = []
    with contextlib.closing(await make().ready(wanted, lines.append)) as venv:
        assert await say(venv, "import acme; print(acme.VERSION)") == "2.0"
    assert (lines, only_folder(tmp_path).env.stat().st_ctime_ns) == ([], built)


async def test_an_environment_without_packages_is_what_the_agent_has(make: Make) -> None:
    with contextlib.closing(await ready(make(needs=("engines.config",)), VirtualEnv())) as venv:
        assert await say(venv, "import grpc; print(grpc.__name__)") == "grpc"


CANNOT: dict[str, tuple[str, str]] = {
    "no such package": ("no-such-package", r"no-such-package was not found .*unset UV_OFFLINE of the node agent"),
    "no such version": ("acme>9", r"only acme<=2\.0 is available .*: correct packages or constraints"),
    "versions that contradict": ("acme>1", r"coyote.* .*: correct packages or constraints"),
    "another platform": ("elsewhere", r"elsewhere.* no wheels with a matching .*: correct packages or constraints"),
    "a module of ours": ("engines", r"bring a module engines, which is the engine's own: leave out"),
    "no requirement": ("==1", r"an environment was asked for that cannot be: .*: correct packages"),
}


@pytest.mark.parametrize(("package", "message"), CANNOT.values(), ids=CANNOT)
async def test_what_cannot_be_built_is_said_with_the_cure_and_leaves_nothing(
    make: Make, wheels: Path, tmp_path: Path, package: str, message: str
) -> None:
    wanted = ask(wheels, *{package, "coyote"}) if package.startswith("acme>1") else ask(wheels, package)
    with pytest.raises(NotBuilt, match=message):
        await ready(make(), wanted)
    assert left(tmp_path) == []


async def test_an_index_out_of_reach_is_named_without_its_password(make: Make, wheels: Path, tmp_path: Path) -> None:
    venvs = make(UV_OFFLINE="0", UV_HTTP_RETRIES="0")
    lines: list[str] = []
    with pytest.raises(NotBuilt, match="check index_url, and the network of the node") as error:
        async with asyncio.timeout(PATIENCE_S):
            await venvs.ready(
                VirtualEnv(packages=["acme"], index_url="http://me:secret@127.0.0.1:9/simple"), lines.append
            )
    said = [str(error.value), *lines, only_folder(tmp_path).log.read_text()]
    assert not [each for each in said if "secret" in each]
    assert left(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the environment and not for what goes into it."""
    disk = tmp_path / "venvs"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_disk_that_becomes_full_is_named_and_nothing_is_left(
    make: Make, wheels: Path, small_disk: Path, tmp_path: Path
) -> None:
    write_wheel(wheels, "large", "1.0", source="#" * 8_000_000)
    with pytest.raises(NotBuilt, match=r"No space left on device .*: free some of the disk, or give the node agent"):
        await ready(make(), ask(wheels, "large"))
    assert left(tmp_path) == []
    with contextlib.closing(await ready(make(), ask(wheels, "acme"))) as venv:
        assert await say(venv, "import acme; print(acme.VERSION)") == "2.0"


async def test_a_constraint_holds_for_what_comes_along(make: Make, wheels: Path) -> None:
    with contextlib.closing(await ready(make(), ask(wheels, "acme", constraints=["acme<2"]))) as venv:
        assert await say(venv, "import acme; print(acme.VERSION)") == "1.0"


async def test_lines_of_the_build_come_while_it_goes_on_and_are_kept(make: Make, wheels: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        (await make().ready(ask(wheels, "acme==1.0"), lines.append)).close()
    assert "+ acme==1.0" in lines
    assert [each.strip() for each in only_folder(tmp_path).log.read_text().splitlines()] == lines[:-1]
    assert lines[-1] == "looking whether an engine can run in it"


async def begun(venvs: Venvs, mute: Mute) -> asyncio.Task[Venv]:
    """Returns a build that is waiting for its index."""
    building = asyncio.create_task(venvs.ready(VirtualEnv(packages=["acme"], index_url=mute.address), ignore))
    async with asyncio.timeout(PATIENCE_S):
        await mute.asked.wait()
    return building


async def test_a_build_that_is_given_up_ends_at_once_and_leaves_nothing(make: Make, tmp_path: Path) -> None:
    async with mute_index() as mute:
        building = await begun(make(UV_OFFLINE="0"), mute)
        assert left(tmp_path) != []
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        with only_folder(tmp_path).alone() as is_free:
            assert is_free, "no process of the build is left"
        assert left(tmp_path) == []


async def test_who_gives_up_takes_a_build_from_nobody_else(make: Make, tmp_path: Path) -> None:
    async with mute_index() as mute:
        venvs = make(UV_OFFLINE="0")
        stays = await begun(venvs, mute)
        leaves = await begun(venvs, mute)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        assert left(tmp_path) != []
        mute.answers.set()
        with pytest.raises(NotBuilt, match="acme"):
            await stays


async def test_a_builder_that_is_killed_is_told_of_and_takes_all_that_it_ran_along(make: Make, tmp_path: Path) -> None:
    async with mute_index() as mute:
        venvs = make(UV_OFFLINE="0")
        building = await begun(venvs, mute)
        [builder] = children_of(os.getpid(), "nodeagent.venvs.build")
        os.kill(builder, signal.SIGKILL)
        with pytest.raises(NotBuilt, match="ended with -9"):
            await building
        await nobody_in(only_folder(tmp_path))


async def test_an_agent_that_is_killed_in_the_middle_of_a_build_leaves_nothing_and_the_next_builds_anew(
    make: Make, wheels: Path, tmp_path: Path
) -> None:
    async with mute_index() as mute:
        wanted = VirtualEnv(packages=["acme"], index_url=mute.address, find_links=[str(wheels)])
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AGENT, str(tmp_path / "venvs"), wanted.SerializeToString().hex()),
            env={**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache")},
        )
        async with asyncio.timeout(PATIENCE_S):
            await mute.asked.wait()
        agent.kill()
        await agent.wait()
        await nobody_in(only_folder(tmp_path))
        assert left(tmp_path) == []
        (only_folder(tmp_path).path / ".new-left").mkdir()
        mute.answers.set()
        with contextlib.closing(await ready(make(UV_OFFLINE="0"), wanted)) as venv:
            assert await say(venv, "import acme; print(acme.VERSION)") == "2.0"
        assert left(tmp_path) == ["env"]


AGENT = """
import asyncio, os, pathlib, sys
from nodeagent.venvs.venvs import Venvs
from roundhouse.v1.deployment_pb2 import VirtualEnv

wanted = VirtualEnv.FromString(bytes.fromhex(sys.argv[2]))
asyncio.run(Venvs(pathlib.Path(sys.argv[1]), os.environ, ["engines"]).ready(wanted, print))
"""


def children_of(parent: int, word: str) -> list[int]:
    """Returns the pids of processes of a parent that have a word in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(status[1]) == parent and word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
