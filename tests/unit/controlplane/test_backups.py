"""A store in use is copied into a file, and restored so that agents obey it and cursors of before mean nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from controlplane import wire
from controlplane.backups import back_up, restore
from controlplane.cluster import Term, begin_term
from controlplane.config import STORE
from controlplane.store.cursors import format_cursor, parse_cursor
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.internal.v1.engine_spec_pb2 import SealedValue
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from roundhouse.kit.errors import TooLong, Usage
from roundhouse.kit.files import own_directory
from roundhouse.v1.deployment_pb2 import Deployment

NOW_S = 1_800_000_000.0


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.sqlite"


@contextlib.asynccontextmanager
async def started(state_dir: Path) -> AsyncIterator[tuple[SqliteStore, Term]]:
    """Opens the store of a directory as a control plane does when it starts."""
    async with open_sqlite(state_dir / STORE) as store:
        yield store, await begin_term(store)


def contents(directory: Path) -> dict[str, bytes]:
    """Returns what is in the files of a directory, but for what comes and goes with whoever looks."""
    passing = ("lock", f"{STORE}-shm", f"{STORE}-wal")
    return {each.name: content(each) for each in directory.iterdir() if each.is_file() and each.name not in passing}


def content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def kill_9(state_dir: Path) -> Path:
    """Returns the directory as the kernel leaves it: what was written last stands in the journal."""
    (killed := state_dir.parent / "killed").mkdir()
    for each in state_dir.iterdir():
        (killed / each.name).write_bytes(each.read_bytes())
    return killed


async def create(store: SqliteStore, name: str, *, has_secret: bool = False) -> None:
    record = DeploymentRecord(deployment=Deployment(name=f"deployments/{name}"))
    if has_secret:
        record.sealed_env.append(SealedValue(name="TOKEN", version=1, sealed=b"sealed"))
    await store.commit([], {wire.deployment_key(name): record.SerializeToString()})


async def deployments_in(state_dir: Path) -> list[str]:
    async with open_sqlite(state_dir / STORE) as store:
        return [each.key.removeprefix(wire.DEPLOYMENTS) for each in (await store.list(wire.DEPLOYMENTS)).entries]


async def test_a_backup_of_a_store_in_use_is_one_file_with_all_that_was_acknowledged(
    state_dir: Path, file: Path
) -> None:
    async with started(state_dir) as (store, term):
        await create(store, "chat", has_secret=True)
        await create(store, "embed")
        copied = back_up(state_dir, file)
        await create(store, "late")
    assert list(contents(file.parent)) == [file.name]
    assert mode(file) == 0o600
    assert (copied.cluster_id, copied.deployments, copied.with_secrets) == (
        term.cluster_id,
        ("chat", "embed"),
        ("chat",),
    )
    (elsewhere := state_dir.parent / "elsewhere").mkdir()
    restore(file, elsewhere, now_s=NOW_S)
    assert await deployments_in(elsewhere) == ["chat", "embed"]
    assert await deployments_in(state_dir) == ["chat", "embed", "late"]


async def test_what_a_control_plane_wrote_before_kill_9_is_in_the_backup(state_dir: Path, file: Path) -> None:
    async with started(state_dir) as (store, _):
        await create(store, "chat")
        killed = kill_9(state_dir)
    assert content(killed / f"{STORE}-wal")
    assert back_up(killed, file).deployments == ("chat",)


async def test_a_restored_store_has_a_later_term_however_often_the_control_plane_was_started_since(
    state_dir: Path, file: Path
) -> None:
    async with started(state_dir) as (_, first):
        back_up(state_dir, file)
    numbers = []
    for _ in range(5):
        async with started(state_dir) as (_, term):
            numbers.append(term.number)
    restore(file, state_dir, now_s=NOW_S, replaces=True)
    async with started(state_dir) as (_, restored):
        assert restored.cluster_id == first.cluster_id
        assert restored.number > max(numbers) == 6
    restore(file, state_dir.parent / "other", now_s=NOW_S + 1, replaces=True)
    async with started(state_dir.parent / "other") as (_, again):  # which does not know of the first restoration
        assert again.number > restored.number


async def test_a_clock_that_was_set_back_does_not_set_back_the_term_of_the_store_that_is_replaced(
    state_dir: Path, file: Path
) -> None:
    async with started(state_dir):
        back_up(state_dir, file)
    restore(file, state_dir, now_s=NOW_S, replaces=True)
    async with started(state_dir) as (_, last):
        pass
    restore(file, state_dir, now_s=0.0, replaces=True)
    async with started(state_dir) as (_, restored):
        assert restored.number > last.number


async def test_cursors_of_before_the_restoration_are_refused(state_dir: Path, file: Path) -> None:
    async with started(state_dir) as (store, _):
        cursor = format_cursor(store.epoch, "etag", 1)
        back_up(state_dir, file)
    for directory in (state_dir, state_dir.parent / "elsewhere"):
        restore(file, directory, now_s=NOW_S, replaces=True)
        async with open_sqlite(directory / STORE) as store:
            with pytest.raises(TooLong, match="of another store"):
                parse_cursor(store.epoch, "etag", cursor)


async def test_the_store_that_was_there_is_kept_aside_and_can_be_restored_in_turn(state_dir: Path, file: Path) -> None:
    async with started(state_dir) as (store, _):
        back_up(state_dir, file)
        await create(store, "late")
    copied = restore(file, state_dir, now_s=NOW_S, replaces=True)
    assert await deployments_in(state_dir) == []
    aside = Path(copied.kept_aside)
    assert aside.parent == state_dir
    restore(aside, state_dir, now_s=NOW_S + 2, replaces=True)
    assert await deployments_in(state_dir) == ["late"]


async def test_a_broken_store_is_kept_aside_with_its_journal_as_it_is(state_dir: Path, file: Path) -> None:
    async with started(state_dir):
        back_up(state_dir, file)
    broken = {STORE: b"broken" * 1000, f"{STORE}-wal": b"journal"}
    for name, each in broken.items():
        (state_dir / name).write_bytes(each)
    with pytest.raises(Usage, match="has a store, which cannot be read: keep it aside with --force"):
        restore(file, state_dir, now_s=NOW_S)
    aside = Path(restore(file, state_dir, now_s=NOW_S, replaces=True).kept_aside)
    assert content(aside) == broken[STORE]
    assert content(aside.with_name(f"{aside.name}-wal")) == broken[f"{STORE}-wal"]
    assert await deployments_in(state_dir) == []


async def test_a_store_that_is_there_is_replaced_only_if_that_is_asked_for(
    state_dir: Path, file: Path, tmp_path: Path
) -> None:
    async with started(state_dir) as (store, one):
        back_up(state_dir, file)
        await create(store, "late")
    with pytest.raises(Usage, match=r"of the same cluster .* would be missing: keep it aside with --force"):
        restore(file, state_dir, now_s=NOW_S)
    assert await deployments_in(state_dir) == ["late"]
    (other := tmp_path / "other").mkdir()
    async with started(other) as (_, two):
        pass
    with pytest.raises(Usage, match=f"of cluster {two.cluster_id}, and the backup is of {one.cluster_id}: keep it"):
        restore(file, other, now_s=NOW_S)
    restore(file, other, now_s=NOW_S, replaces=True)
    async with started(other) as (_, restored):
        assert restored.cluster_id == one.cluster_id


async def test_a_directory_that_a_control_plane_holds_is_left_alone(state_dir: Path, file: Path) -> None:
    async with started(state_dir):
        back_up(state_dir, file)
    before = contents(state_dir)
    with own_directory(state_dir, "control plane"), pytest.raises(Usage, match=r"in use by .*control plane \(pid"):
        restore(file, state_dir, now_s=NOW_S, replaces=True)
    assert contents(state_dir) == before


def _text(path: Path) -> None:
    path.write_text("this is no database, but long enough to be read as one" * 100)


def _foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


def _newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


def _damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)


def _unused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM entries WHERE key = 'cluster'")


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(_text, "is broken: file is not a database: use another backup", id="text"),
        pytest.param(_foreign, "is no store of a control plane: name one, or a backup of one", id="foreign"),
        pytest.param(_newer, "has version 2 and this program knows 1: use the one that wrote it", id="newer"),
        pytest.param(_damaged, "is broken: .*: use another backup", id="damaged"),
        pytest.param(_unused, "is of no cluster, since no control plane ever used it", id="unused"),
        pytest.param(_gone, "cannot be read: .*: No such file or directory: check the path", id="gone"),
    ],
)
async def test_a_file_that_is_no_backup_is_refused_and_nothing_is_changed(
    state_dir: Path, file: Path, spoil: Callable[[Path], None], says: str
) -> None:
    async with started(state_dir) as (store, _):
        for number in range(200):
            await store.commit([], {f"families/{number}": bytes(900)})
        back_up(state_dir, file)
    spoil(file)
    before = contents(state_dir)
    with pytest.raises(Usage, match=says):
        restore(file, state_dir, now_s=NOW_S, replaces=True)
    assert contents(state_dir) == before


async def test_a_backup_replaces_a_file_only_if_that_is_asked_for_and_never_the_store_itself(
    state_dir: Path, file: Path
) -> None:
    async with started(state_dir):
        _text(file)
        with pytest.raises(Usage, match="is there already: choose another file, or replace it with --force"):
            back_up(state_dir, file)
        assert content(file).startswith(b"this is no database")
        back_up(state_dir, file, replaces=True)
        assert content(file).startswith(b"SQLite format 3")
        with pytest.raises(Usage, match=r"is the store itself: choose another file$"):
            back_up(state_dir, state_dir / STORE, replaces=True)


async def test_a_directory_without_a_store_is_refused_with_a_hint_to_the_one_that_is_meant(
    state_dir: Path, file: Path
) -> None:
    with pytest.raises(Usage, match="has no store: name the control plane's with --state-dir"):
        back_up(state_dir, file)
    (state_dir / "controlplane").mkdir()
    async with started(state_dir / "controlplane"):
        with pytest.raises(Usage, match=r"has no store, but .*/controlplane has one"):
            back_up(state_dir, file)
    assert not content(file)
