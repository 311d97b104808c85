"""Engines are started, watched, restarted, drained and ended: real processes, real signals."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.launch import Launch
from nodeagent.logs.files import LOG_BYTES
from nodeagent.model import Reading
from nodeagent.process import identify, is_alive, session
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.times import from_timestamp
from roundhouse.v1 import deployment_pb2
from tests.support.supervision import (
    DRAINING,
    FAILED,
    READY,
    STARTING,
    STOPPED,
    Node,
    logged,
    wanted,
    without_descriptors,
)


async def test_an_assigned_replica_becomes_ready(node: Node) -> None:
    assert await node.assign(wanted())
    report = await node.until(lambda report: report.fingerprint)
    assert (report.state, report.message, report.fingerprint) == (READY, "serving", "scripted")
    assert (report.replica, report.placement_epoch) == ("deployments/chat/replicas/r-1", 1)
    assert report.load.running_count == 3
    assert report.address.startswith("127.0.0.1:")
    assert report.pid != os.getpid()
    assert len(report.engine_key) == 32
    assert not report.HasField("last_exit")


async def test_an_engine_is_told_its_life_in_its_directory(node: Node) -> None:
    await node.assign(wanted())
    report = await node.until_state(READY)
    spec = node.bundle().spec()
    assert spec == engine_spec_pb2.EngineBundle(
        engine_uuid=report.engine_uuid,
        replica=report.replica,
        replica_uid="r-1",
        placement_epoch=1,
        deployment_generation=1,
        spec=wanted().spec,
        reserved_memory_bytes=1024,
        device="cpu",
        listen_host="127.0.0.1",
        start_time=spec.start_time,
        cluster_id="cluster",
    )
    assert node.bundle().key() == report.engine_key


async def test_an_engine_that_loads_is_starting_and_says_what_it_does(node: Node) -> None:
    await node.assign(wanted(script="loading"))
    starting = await node.until_state(STARTING)
    assert starting.progress.stage == deployment_pb2.LAUNCH_STAGE_STARTING_ENGINE
    assert starting.progress.stage_start_time == node.bundle().spec().start_time
    loading = await node.until(lambda report: report.message == "loading")
    assert loading.state == STARTING
    assert loading.progress.stage == deployment_pb2.LAUNCH_STAGE_LOADING_WEIGHTS
    assert (loading.progress.done_bytes, loading.progress.total_bytes, loading.progress.fraction) == (1, 4, 0.25)
    os.kill(loading.pid, signal.SIGUSR2)
    ready = await node.until_state(READY)
    assert (ready.pid, ready.HasField("progress")) == (loading.pid, False)


async def test_an_engine_that_dies_before_it_is_ready_fails_with_its_last_words_and_starts_again(node: Node) -> None:
    await node.assign(wanted(script="exit=37"))
    failed = await node.until_state(FAILED)
    assert failed.message == "the engine ended with exit status 37"
    assert failed.last_exit.exit_code == 37
    assert not failed.last_exit.HasField("signal")
    assert list(failed.last_exit.stderr_lines) == ["first line", "last words"]
    assert (failed.pid, failed.engine_uuid, failed.address) == (0, "", "")
    assert from_timestamp(failed.next_start_time) - from_timestamp(failed.last_exit.exit_time) == pytest.approx(
        1, abs=0.2
    )
    again = await node.until(lambda report: report.restart_count == 1)
    assert again.state != FAILED


async def test_an_engine_that_dies_again_and_again_is_a_crash_loop(node: Node) -> None:
    await node.assign(wanted(script="exit=1"))
    looping = await node.until(lambda report: report.is_crash_loop)
    assert looping.restart_count == 2
    await node.assign(wanted(script="exit=1", stop_grace_s=0.0))
    await node.until_state(STOPPED)


async def test_an_engine_that_is_killed_is_started_again_as_another_life(node: Node) -> None:
    await node.assign(wanted())
    first = await node.until_state(READY)
    os.kill(first.pid, signal.SIGKILL)
    failed = await node.until_state(FAILED)
    assert failed.message == "the engine was killed by SIGKILL"
    assert failed.last_exit.signal == signal.SIGKILL
    second = await node.until_state(READY)
    assert second.pid != first.pid
    assert second.engine_uuid != first.engine_uuid
    assert second.engine_key != first.engine_key
    assert second.restart_count == 1


async def test_what_an_engine_leaves_behind_ends_with_it(node: Node) -> None:
    await node.assign(wanted(script="parent"))
    report = await node.until_state(READY)
    child = identify(int((node.bundle().path / "child").read_text()))
    assert child is not None
    assert is_alive(child)
    os.kill(report.pid, signal.SIGUSR1)
    failed = await node.until(lambda report: report.state == FAILED)
    assert failed.last_exit.exit_code == 37
    await node.until(lambda report: report.restart_count == 1)
    assert not is_alive(child)


async def test_an_engine_that_proves_to_be_another_is_ended(node: Node) -> None:
    await node.assign(wanted(script="stranger"))
    failed = await node.until_state(FAILED)
    assert "another engine listens there" in failed.message
    assert failed.last_exit.signal == signal.SIGTERM or failed.last_exit.exit_code == 0


async def test_a_stop_drains_with_the_grace_that_was_asked_for(node: Node) -> None:
    await node.assign(wanted())
    pid = (await node.until_state(READY)).pid
    await node.assign(wanted(stop_grace_s=12.5))
    stopped = await node.until_state(STOPPED)
    assert (node.bundle().path / "drained").read_text() == "12.5"
    assert (stopped.pid, stopped.HasField("last_exit")) == (0, False)
    identity = identify(pid)
    assert identity is None or not is_alive(identity)


async def test_a_replica_that_was_stopped_is_reported_until_it_is_not_mentioned_any_more(node: Node) -> None:
    await node.assign(wanted())
    await node.until_state(READY)
    await node.assign(wanted(stop_grace_s=0.0))
    await node.until_state(STOPPED)
    await node.assign()
    await node.until_true(lambda: node.report() is None)
    assert not node.bundle().path.exists()


async def test_an_engine_that_neither_drains_nor_obeys_is_killed_with_its_children(node: Node) -> None:
    await node.assign(wanted(script="deaf parent"))
    report = await node.until_state(READY)
    process = identify(report.pid)
    assert process is not None
    assert len(session(process)) == 3  # the engine, its child, and what that runs
    os.kill(report.pid, signal.SIGSTOP)
    await node.assign(wanted(stop_grace_s=0.0))
    await node.until_state(DRAINING)
    await node.until_state(STOPPED)
    assert session(process) == []


async def test_a_shorter_grace_shortens_a_drain_that_goes_on(node: Node) -> None:
    await node.assign(wanted(script="busy"))
    await node.until_state(READY)
    await node.assign(wanted(script="busy", stop_grace_s=1000.0))
    await node.until(lambda report: report.state == DRAINING and report.message == "draining")
    await node.assign(wanted(script="busy", stop_grace_s=0.1))
    await node.until_state(STOPPED)
    assert (node.bundle().path / "drained").read_text() == "0.1"


async def test_an_engine_that_never_listens_can_be_stopped(node: Node) -> None:
    await node.assign(wanted(script="silent"))
    await node.until_state(STARTING)
    await node.assign(wanted(script="silent", stop_grace_s=1000.0))
    await node.until_state(STOPPED)


async def test_a_replica_that_was_stopped_starts_afresh_when_it_is_wanted_again(node: Node) -> None:
    await node.assign(wanted(script="exit=1"))
    await node.until_state(FAILED)
    await node.assign(wanted(stop_grace_s=0.0))
    await node.until_state(STOPPED)
    await node.assign(wanted())
    report = await node.until_state(READY)
    assert (report.restart_count, report.HasField("last_exit")) == (0, False)


async def test_an_orphan_is_kept_and_reported_as_one(node: Node) -> None:
    await node.assign(wanted())
    pid = (await node.until_state(READY)).pid
    await node.assign()
    orphan = await node.until(lambda report: report.is_orphan)
    assert (orphan.state, orphan.pid) == (READY, pid)
    await node.assign(wanted())
    kept = await node.until(lambda report: not report.is_orphan)
    assert kept.pid == pid


async def test_an_assignment_of_another_cluster_or_of_the_past_changes_nothing(node: Node) -> None:
    await node.assign(wanted(), term=2)
    await node.until_state(READY)
    assert not await node.assign(wanted(stop_grace_s=0.0), cluster_id="other", term=3)
    assert not await node.assign(wanted(stop_grace_s=0.0), term=1)
    report = node.report()
    assert report is not None
    assert report.state == READY
    assert node.supervisor.applied is not None
    assert (node.supervisor.applied.term, node.supervisor.applied.generation) == (2, 1)


async def test_a_change_that_leaves_the_specification_alone_needs_no_new_life(node: Node) -> None:
    await node.assign(wanted())
    first = await node.until_state(READY)
    scaled = wanted()
    scaled.deployment_generation = 2
    await node.assign(scaled)
    report = await node.until(lambda report: report.deployment_generation == 2)
    assert (report.pid, report.state) == (first.pid, READY)


async def test_a_replica_whose_gpu_is_taken_is_refused_and_started_once_there_is_room(node: Node) -> None:
    gpu = Reading("g", 0, "", is_simulated=True, total_bytes=2000)
    await node.gpus(Reading("g", 0, "", is_simulated=True, total_bytes=2000, foreign_bytes=1500))
    await node.assign(wanted(gpu_uuids=["g"]))
    await node.until_true(node.supervisor.refusals)
    [refused] = node.supervisor.refusals()
    assert (refused.replica_uid, refused.available_memory_bytes, list(refused.gpu_uuids)) == ("r-1", 500, ["g"])
    await node.gpus(gpu)
    await node.until_state(READY)
    assert node.supervisor.refusals() == []


async def test_what_occupies_a_gpu_is_told_to_the_sampler(node: Node) -> None:
    await node.gpus(Reading("g", 0, "", is_simulated=True, total_bytes=2000))
    await node.assign(wanted(gpu_uuids=["g"]))
    report = await node.until_state(READY)
    [occupant] = node.occupants.get()
    assert (occupant.replica_uid, occupant.gpu_uuids, occupant.pid) == ("r-1", ("g",), report.pid)
    assert (occupant.is_loaded, occupant.busy_fraction, occupant.reserved_bytes) == (True, 0.5, 1024)
    await node.assign(wanted(gpu_uuids=["g"], stop_grace_s=0.0))
    await node.until_state(STOPPED)
    assert node.occupants.get() == ()


def environment_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


async def test_a_real_gpu_is_not_free_before_the_driver_shows_it(node: Node) -> None:
    held = Reading("g", 0, "", is_simulated=False, total_bytes=2000, measured_bytes={"r-1": 900})
    await node.gpus(Reading("g", 0, "", is_simulated=False, total_bytes=2000))
    await node.assign(wanted(gpu_uuids=["g"]))
    process = identify((await node.until_state(READY)).pid)
    assert process is not None
    assert node.bundle().spec().device == "cuda"
    assert "CUDA_VISIBLE_DEVICES=g" in environment_of(process.pid)
    await node.gpus(held)
    await node.assign(wanted(gpu_uuids=["g"], stop_grace_s=0.0))
    draining = await node.until(lambda report: report.state == DRAINING and report.pid == 0)
    assert (session(process), draining.measured_memory_bytes) == ([], 900)
    await node.gpus(Reading("g", 0, "", is_simulated=False, total_bytes=2000))
    await node.until_state(STOPPED)


async def test_a_command_that_cannot_run_fails_the_replica_with_the_reason(idle: Node) -> None:
    idle.how = Launch(os.environ, ("no-such-command",))
    async with idle.supervised():
        await idle.assign(wanted())
        failed = await idle.until_state(FAILED)
        assert "cannot be started" in failed.message
        assert "no-such-command" in failed.message


async def test_a_replica_that_cannot_be_started_for_a_reason_that_nobody_expected_fails_as_well(node: Node) -> None:
    await node.assign(wanted(script="a\0b"))
    failed = await node.until_state(FAILED)
    assert failed.message == "the engine cannot be started: embedded null byte"


async def test_an_engine_that_cannot_be_ended_at_once_is_ended_later(node: Node) -> None:
    await node.assign(wanted(script="parent"))
    before = await node.until_state(READY)
    process = identify(before.pid)
    assert process is not None
    with logged("an engine could not be ended, and is tried again") as failed, without_descriptors():
        await node.assign(wanted(script="parent", stop_grace_s=0.0))
        await failed.wait()
    await node.until_state(STOPPED)
    assert session(process) == []


async def test_logs_are_cut_again_after_that_has_failed(idle: Node) -> None:
    idle.timing = replace(idle.timing, trim_period_s=0.01)
    async with idle.supervised():
        await idle.assign(wanted())
        await idle.until_state(READY)
        stdout, fresh = idle.bundle().stdout, idle.folder / "fresh"
        stdout.unlink()
        with logged("the logs of an engine cannot be cut") as failed:
            stdout.symlink_to(stdout)
            await failed.wait()
        (stdout.parent / "stdout.log.new").symlink_to("/dev/full")
        fresh.touch()
        os.truncate(fresh, LOG_BYTES + 1)
        with logged("the log of an engine is lost, since it cannot be copied") as cut:
            fresh.rename(stdout)
            await cut.wait()
