"""The directories of engines survive whatever kills the agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from nodeagent.bundle import Bundles, Record
from nodeagent.logs.files import LOG_BYTES
from nodeagent.model import Death, Exit, ProcessId
from roundhouse.internal.v1 import engine_spec_pb2
from tests.support.full_disk import without_room

SPEC = engine_spec_pb2.EngineBundle(engine_uuid="e-1", replica="deployments/chat/replicas/0", replica_uid="r-1")
RECORD = Record(
    process=ProcessId(7, 8, "boot"),
    restart_count=2,
    early_deaths=1,
    last_death=Death(Exit(code=37), ("one", "two"), 5.5, "it ended"),
    ready_time_s=4.5,
    is_stopping=True,
)


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    """The directories of a new node."""
    bundles = Bundles(tmp_path / "engines")
    assert bundles.open() == []
    return bundles


def test_the_next_agent_finds_what_this_one_wrote(bundles: Bundles) -> None:
    bundles.begin(SPEC, b"k" * 32, RECORD)
    [found] = bundles.open()
    assert (found.replica_uid, found.spec(), found.key(), found.record()) == ("r-1", SPEC, b"k" * 32, RECORD)


def test_only_the_owner_can_read_the_key_and_the_environment(bundles: Bundles) -> None:
    bundle = bundles.begin(SPEC, b"k" * 32, RECORD)
    assert {(bundle.path / name).stat().st_mode & 0o777 for name in ("key", "spec.json", "life.json")} == {0o600}
    assert bundle.path.stat().st_mode & 0o777 == 0o700


def test_a_new_life_does_not_hear_the_one_before_and_keeps_its_logs(bundles: Bundles) -> None:
    bundle = bundles.begin(SPEC, b"k" * 32, RECORD)
    (bundle.path / "ready.json").write_text('{"address": "127.0.0.1:1"}')
    bundle.stderr.write_text("first life")
    ready = bundle.ready()
    assert ready is not None
    assert ready.address == "127.0.0.1:1"
    again = bundles.begin(
        engine_spec_pb2.EngineBundle(engine_uuid="e-2", replica_uid="r-1"), b"l" * 32, replace(RECORD, process=None)
    )
    assert again.ready() is None
    assert not again.stderr.exists()
    assert (again.path / "previous.stderr.log").read_text() == "first life"
    assert (again.spec().engine_uuid, again.key(), again.record().process) == ("e-2", b"l" * 32, None)


def test_what_was_half_made_or_half_removed_is_swept_away(bundles: Bundles, tmp_path: Path) -> None:
    bundle = bundles.begin(SPEC, b"k", RECORD)
    (tmp_path / "engines/.new-1").mkdir()
    (tmp_path / "engines/.gone-1").mkdir()
    (tmp_path / "engines/.gone-1/key").write_bytes(b"")
    assert [each.path for each in bundles.open()] == [bundle.path]
    assert [each.name for each in (tmp_path / "engines").iterdir()] == ["r-1"]


def test_a_removed_directory_is_gone_and_may_be_removed_again(bundles: Bundles) -> None:
    bundle = bundles.begin(SPEC, b"k", RECORD)
    bundles.remove(bundle)
    bundles.remove(bundle)
    assert bundles.open() == []


def test_the_tail_of_the_error_stream_is_short(bundles: Bundles) -> None:
    bundle = bundles.begin(SPEC, b"k", RECORD)
    assert bundle.stderr_tail() == ()
    bundle.stderr.write_bytes(b"".join(b"%04d %s\xff\n" % (number, b"x" * 800) for number in range(300)))
    tail = bundle.stderr_tail()
    assert [line[:4] for line in tail] == [f"{number:04d}" for number in range(280, 300)]
    assert {len(line) for line in tail} == {500}


def test_a_log_that_grows_is_cut_while_the_engine_goes_on_writing(bundles: Bundles) -> None:
    bundle = bundles.begin(SPEC, b"k", RECORD)
    with bundle.stdout.open("ab", buffering=0) as engine:
        engine.truncate(LOG_BYTES + 1)
        bundle.trim_logs()
        engine.write(b"on")
    assert bundle.stdout.read_bytes() == b"on"
    assert (bundle.path / "stdout.log.1").stat().st_size == LOG_BYTES + 1


def test_without_room_for_a_directory_there_is_none_and_no_half_of_one(bundles: Bundles) -> None:
    with without_room(), pytest.raises(OSError, match="File too large"):  # a full disk says another word
        bundles.begin(SPEC, b"k" * 32, RECORD)
    assert list(bundles.root.iterdir()) == []
    bundles.begin(SPEC, b"k" * 32, RECORD)
    assert [each.replica_uid for each in bundles.open()] == ["r-1"]


def test_on_a_full_disk_a_log_that_grows_is_cut_all_the_same_and_leaves_no_half_copy(bundles: Bundles) -> None:
    bundle = bundles.begin(SPEC, b"k", RECORD)
    (bundle.path / "stdout.log.new").symlink_to("/dev/full")
    for path in (bundle.stdout, bundle.stderr):
        with path.open("wb") as file:
            file.truncate(LOG_BYTES + 1)
    with structlog.testing.capture_logs() as logs:
        bundle.trim_logs()
    assert (bundle.stdout.stat().st_size, bundle.stderr.stat().st_size) == (0, 0)
    assert not (bundle.path / "stdout.log.new").is_symlink()
    assert (bundle.path / "stdout.log.1").stat().st_blocks == 0  # a hole
    assert (bundle.path / "stderr.log.1").stat().st_size == LOG_BYTES + 1
    assert [(each["log_level"], each["path"]) for each in logs] == [("warning", str(bundle.stdout))]
    assert "No space left on device" in logs[0]["error"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spec.json", "{"),
        ("spec.json", "{}"),
        ("spec.json", '{"replicaUid": "r-2"}'),
        ("ready.json", "{"),
        ("life.json", "{"),
        ("life.json", "[]"),
        ("life.json", '{"process": 3}'),
    ],
)
def test_a_broken_file_is_an_error_that_can_be_expected(bundles: Bundles, name: str, content: str) -> None:
    bundle = bundles.begin(SPEC, b"k", RECORD)
    (bundle.path / name).write_text(content)
    with pytest.raises(ValueError, match=r"json|Expecting|property"):
        {"spec.json": bundle.spec, "ready.json": bundle.ready, "life.json": bundle.record}[name]()


def test_instructions_of_a_newer_agent_are_understood_as_far_as_they_go(bundles: Bundles) -> None:
    bundle = bundles.begin(SPEC, b"k", RECORD)
    (bundle.path / "spec.json").write_text('{"replicaUid": "r-1", "fromTheFuture": 1}')
    assert bundle.spec().replica_uid == "r-1"
