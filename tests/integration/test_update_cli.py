"""`roundhouse update`: each flag does what it says, by itself, and a change that does not work ends with its reason."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from roundhouse.internal.v1 import agent_service_pb2 as agent_pb
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import Deployment, EngineOptions, EnvVar, ModelSource, Speculation, VirtualEnv
from tests.support.plane import Plane, plane_on
from tests.support.scripted_agent import ScriptedAgent

TUNED = "/models/tuned"


async def update(plane: Plane, *flags: str, name: str = "chat") -> tuple[int | None, str, str]:
    """Runs the command as a person does; returns its status, and what it wrote to both streams."""
    words = ["--address", plane.address, "update", name, *flags]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "roundhouse.cli", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def ready(plane: Plane) -> Deployment:
    seen = await plane.until(lambda all_: bool(all_) and next(iter(all_.values())).updated_replica_count == 1)
    return next(iter(seen.values()))


FLAGS: dict[str, tuple[Sequence[str], Callable[[Deployment], Any], Any]] = {
    "an option": (["--batch-size", "3"], lambda each: each.engine_options.batch_size, 3),
    "a variable beside those that are there": (
        ["--env", "B", "2"], lambda each: [(one.name, one.value) for one in each.env], [("A", "1"), ("B", "2")],
    ),
    "another value of a variable": (
        ["--env", "A", "2"], lambda each: [(one.name, one.value) for one in each.env], [("A", "2")],
    ),
    "a variable that goes": (["--unset-env", "A"], lambda each: len(each.env), 0),
    "another model": (["--model-path", TUNED], lambda each: each.model.path, TUNED),
    "the count": (["--replica", "2"], lambda each: each.replica_count, 2),
    "a label beside those that are there": (
        ["--label", "b=2"], lambda each: dict(each.labels), {"a": "1", "b": "2"},
    ),
    "how it is rolled out": (
        ["--max-surge", "0", "--max-unavailable", "1", "--drain-grace", "5", "--progress-deadline", "60"],
        lambda each: (
            each.rollout.max_surge,
            each.rollout.max_unavailable,
            each.rollout.drain_grace.seconds,
            each.rollout.progress_deadline.seconds,
        ),
        (0, 1, 5, 60),
    ),
    "how requests find them": (["--routing-policy", "least-loaded"], lambda each: each.routing_policy, "least_loaded"),
    "packages of its own": (
        ["--virtual-env-package", "peft"], lambda each: list(each.virtual_env.packages), ["peft"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("flags", "shown", "wanted"), FLAGS.values(), ids=FLAGS)
async def test_a_flag_changes_what_it_names_and_nothing_else(
    tmp_path: Path, flags: Sequence[str], shown: Callable[[Deployment], Any], wanted: Any
) -> None:
    agent = ScriptedAgent("one")
    tuned = agent_pb.ModelFacts()
    tuned.CopyFrom(agent.models[ModelSource(builtin="demo").SerializeToString()])
    tuned.source.CopyFrom(ModelSource(path=TUNED))
    agent.knows(tuned)
    async with plane_on(tmp_path) as plane, agent.joined(plane.address):
        await plane.create(labels={"a": "1"}, env=[EnvVar(name="A", value="1")])
        before = await ready(plane)
        assert shown(before) != wanted
        status, out, err = await update(plane, *flags, "--json", "--timeout", "30")
        assert status == 0, err
        assert json.loads(out)["state"] == "DEPLOYMENT_STATE_READY"
        after = await plane.get()
        assert shown(after) == wanted
        for other, look, _ in FLAGS.values():
            if other[0] != flags[0] and not {"--env", "--unset-env"} >= {other[0], flags[0]}:
                assert look(after) == look(before), other


async def test_packages_can_be_given_up_and_a_secret_stays_without_being_said_again(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane, ScriptedAgent("one").joined(plane.address):
        secret = EnvVar(name="TOKEN", secret_value="hush-hush")
        await plane.create(env=[secret], virtual_env=VirtualEnv(packages=["peft"]))
        await ready(plane)
        status, out, err = await update(plane, "--disable-virtual-env", "--env", "B", "2", "--timeout", "30")
        assert status == 0, err
        assert "chat is up to date with 1 replica after" in out
        after = await plane.get()
        assert not after.HasField("virtual_env")
        assert [(each.name, each.secret_version) for each in after.env] == [("TOKEN", 1), ("B", 0)]


async def test_what_was_fitted_is_given_and_what_was_given_is_fitted(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane, ScriptedAgent("one").joined(plane.address):
        await plane.create(engine_options=EngineOptions(fit_max_model_len=True))
        await ready(plane)
        for value, given in (("512", True), ("auto", False)):
            status, _, err = await update(plane, "--max-model-len", value, "--timeout", "30")
            assert status == 0, err
            options = (await plane.get()).engine_options
            assert (options.HasField("max_model_len"), options.fit_max_model_len) == (given, not given)


async def test_how_many_tokens_are_guessed_changes_and_not_how(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane, ScriptedAgent("one").joined(plane.address):
        guessing = Speculation(method=deployment_pb2.SPECULATION_METHOD_NGRAM, token_count=2)
        await plane.create(engine_options=EngineOptions(speculation=guessing))
        await ready(plane)
        status, _, err = await update(plane, "--speculation-tokens", "6", "--timeout", "30")
        assert status == 0, err
        after = (await plane.get()).engine_options.speculation
        assert (after.method, after.token_count) == (deployment_pb2.SPECULATION_METHOD_NGRAM, 6)


async def test_a_change_that_does_not_work_ends_the_command_with_the_reason(tmp_path: Path) -> None:
    agent = ScriptedAgent("one")
    async with plane_on(tmp_path) as plane, agent.joined(plane.address):
        await plane.create()
        await ready(plane)
        agent.is_keen = False
        running = asyncio.create_task(update(plane, "--batch-size", "3", "--timeout", "30"))
        told = await agent.assigned(lambda each: len(each.engines) == 2)
        [new] = [each.replica_uid for each in told.engines if each.spec.options.batch_size == 3]
        agent.is_keen = True
        agent.become(deployment_pb2.REPLICA_STATE_FAILED, [new], is_crash_loop=True)
        status, _, err = await running
        assert status == 1
        assert "chat" in err
        assert "generation 2 was taken back to 1" in err


WRONG: dict[str, tuple[Sequence[str], int, str]] = {
    "nothing": ((), 2, "nothing to change"),
    "no such variable": (("--unset-env", "B"), 2, "has no such variable"),
    "packages and none": (("--disable-virtual-env", "-vp", "peft"), 2, "contradict one another"),
    "files of no model": (("-q", "none"), 2, "name it, with -n or -mp"),
    "out of range": (("--batch-size", "0"), 1, "deployment.engine_options.batch_size"),
    "a model that is not there": (("--model-path", "/none"), 1, "/none"),
}


@pytest.mark.parametrize(("flags", "status", "said"), WRONG.values(), ids=WRONG)
async def test_what_cannot_be_changed_is_refused(tmp_path: Path, flags: Sequence[str], status: int, said: str) -> None:
    async with plane_on(tmp_path) as plane, ScriptedAgent("one").joined(plane.address):
        before = await plane.create()
        ended, _, err = await update(plane, *flags)
        assert (ended, said in err) == (status, True), err
        assert (await plane.get()).etag == before.etag
