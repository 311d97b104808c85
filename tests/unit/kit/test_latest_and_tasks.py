"""A latest value and its readers; tasks and their owner; files that a crash leaves whole."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from roundhouse.kit.errors import Usage
from roundhouse.kit.files import own_directory, write_atomically
from roundhouse.kit.latest import Latest
from roundhouse.kit.tasks import Background, looping


async def test_a_reader_sees_the_value_as_it_is_and_then_only_the_newest() -> None:
    latest = Latest(0)
    reader = latest.watch()
    assert await anext(reader) == 0
    for value in range(1, 1000):
        latest.set(value)
    assert await anext(reader) == 999
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    assert not waiting.done()
    latest.set(1000)
    assert await waiting == 1000


async def test_a_slow_reader_does_not_hold_up_a_fast_one() -> None:
    latest = Latest(0)
    slow, fast = latest.watch(), latest.watch()
    assert (await anext(slow), await anext(fast)) == (0, 0)
    seen = []
    for value in range(1, 4):
        latest.set(value)
        seen.append(await anext(fast))
    assert seen == [1, 2, 3]
    assert await anext(slow) == 3


async def test_a_loop_that_fails_ends_the_block_and_the_other_loops() -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as failure:
        async with looping({"endless": endless, "fails": fails}):
            await asyncio.Event().wait()
    assert [type(each) for each in failure.value.exceptions] == [ZeroDivisionError]
    assert ended.is_set()


async def test_leaving_the_owner_waits_for_the_grace_and_then_cancels() -> None:
    ended: list[str] = []

    async def quick() -> None:
        await asyncio.sleep(0)
        ended.append("quick")

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async with Background(grace_s=0.05) as owner:
        owner.start(quick(), "quick")
        owner.start(endless(), "endless")
    assert ended == ["quick", "endless"]


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "key"
    write_atomically(target, b"old", mode=0o600)
    write_atomically(target, b"new", mode=0o600)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_in_use_is_refused_with_the_pid_of_its_owner_and_free_after_a_kill(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from roundhouse.kit.files import own_directory\n"
        f"with own_directory(pathlib.Path({str(tmp_path)!r}), 'thing'): print('held', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(Usage, match=rf"another thing \(pid {owner.pid}\)"), own_directory(tmp_path, "thing"):
            pass
        owner.kill()
    with own_directory(tmp_path, "thing"):
        pass
