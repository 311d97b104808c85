"""Environments stay while anybody uses them and for a while after, and no more than so many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from nodeagent.venvs.collector import GRACE_S, MOST_UNUSED, Collector, expired
from nodeagent.venvs.folder import Folder, folders
from nodeagent.venvs.recipe import recipe_of
from roundhouse.v1.deployment_pb2 import VirtualEnv

NOW_S = time.time()
MANY = {f"{number:03}": NOW_S - number for number in range(MOST_UNUSED + 2)}
EXPIRED: dict[str, tuple[Mapping[str, float], Sequence[str]]] = {
    "none": ({}, []),
    "used just now": ({"a": NOW_S}, []),
    "used long ago": ({"a": NOW_S - GRACE_S, "b": NOW_S - GRACE_S + 1}, ["a"]),
    "too many": (MANY, ["008", "009"]),
}


@pytest.mark.parametrize(("used_s", "keys"), EXPIRED.values(), ids=EXPIRED)
def test_what_was_used_long_ago_goes_and_of_many_the_oldest(used_s: Mapping[str, float], keys: Sequence[str]) -> None:
    assert expired(used_s, NOW_S) == keys


def built(root: Path, name: str = "0" * 32) -> Folder:
    """Returns an environment as a build leaves it."""
    folder = Folder(root / name)
    descriptor = folder.use(waits=True)
    assert descriptor is not None
    os.close(descriptor)
    folder.env.mkdir()
    return folder


def later_s() -> float:
    """Returns when the grace of what is used now will be over."""
    return time.time() + GRACE_S + 60.0


def names(root: Path) -> list[str]:
    return [each.name for each in root.iterdir()]


def collector(root: Path, *wanted: VirtualEnv) -> Collector:
    return Collector(root, {}, lambda: wanted)


async def test_an_environment_stays_for_a_grace_and_goes_with_all_that_it_has(tmp_path: Path) -> None:
    built(tmp_path)
    await collector(tmp_path).look(time.time())
    assert len(folders(tmp_path)) == 1
    await collector(tmp_path).look(later_s())
    assert names(tmp_path) == []


async def test_an_environment_of_an_engine_stays_whatever_becomes_of_its_agent(tmp_path: Path) -> None:
    folder = built(tmp_path)
    descriptor = folder.use(waits=False)
    assert descriptor is not None
    engine = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, pass_fds=(descriptor,))
    os.close(descriptor)
    os.utime(folder.path / "lock", (0, 0))
    await collector(tmp_path).look(later_s())
    assert folder.env.exists()
    assert folder.used_s() > 0, "the grace counts from when it was last seen in use"
    await engine.communicate(b"")
    await collector(tmp_path).look(later_s())
    assert folders(tmp_path) == []


async def test_an_environment_of_an_assigned_replica_stays(tmp_path: Path) -> None:
    wanted = VirtualEnv(packages=["acme"])
    folder = built(tmp_path, recipe_of(wanted, {}).key())
    os.utime(folder.path / "lock", (0, 0))
    await collector(tmp_path, wanted, VirtualEnv(packages=["==no requirement"])).look(time.time())
    assert folder.env.exists()
    assert folder.used_s() > 0


async def test_what_is_half_made_goes_at_once_unless_it_is_being_made(tmp_path: Path) -> None:
    folder = built(tmp_path)
    (folder.path / ".new-x").mkdir()
    descriptor = folder.use(waits=False)
    assert descriptor is not None
    await collector(tmp_path).look(time.time())
    assert (folder.path / ".new-x").exists()
    os.close(descriptor)
    await collector(tmp_path).look(time.time())
    assert not (folder.path / ".new-x").exists()
    assert folder.env.exists()


async def test_what_an_earlier_collector_had_begun_to_delete_goes(tmp_path: Path) -> None:
    (tmp_path / ".gone-x/env").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    await collector(tmp_path).look(later_s())
    assert names(tmp_path) == ["notes"], "what is none of ours stays"


async def test_it_looks_again_and_again_until_it_is_cancelled(tmp_path: Path) -> None:
    running = asyncio.create_task(collector(tmp_path / "not made yet").run())
    await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert running.cancelled()


async def test_who_waits_for_what_is_deleted_finds_a_fresh_folder(tmp_path: Path) -> None:
    folder = built(tmp_path)
    with folder.alone() as is_free:
        assert is_free
        assert folder.use(waits=False) is None
        waiting = asyncio.create_task(asyncio.to_thread(folder.use, waits=True))
        folder.path.rename(tmp_path / "gone")
        for each in (tmp_path / "gone").iterdir():
            each.rmdir() if each.is_dir() else each.unlink()
    descriptor = await waiting
    assert descriptor is not None
    os.close(descriptor)
    assert (folder.path / "lock").exists()
    assert not folder.env.exists()
