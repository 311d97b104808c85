"""Waits for a deployment to become what is wanted, and tells when it never will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from roundhouse.client.mirror import Mirror
from roundhouse.client.names import deployment_id, enum_name, replica_label
from roundhouse.client.stream import Watch
from roundhouse.kit.errors import Conflict, DeadlineExceeded, NotFound, RoundhouseError
from roundhouse.kit.latest import Latest
from roundhouse.kit.tasks import Background
from roundhouse.v1 import condition_pb2, deployment_pb2, deployment_service_pb2, errors_pb2

_FALSE = condition_pb2.CONDITION_STATUS_FALSE
_ROLLED_BACK = "RolledBack"
DEATHS_FOR_GOOD = 3  # one may be an accident, and a second its echo

WatchDeployments = Callable[[], Watch[deployment_service_pb2.DeploymentEvent]]
WatchReplicas = Callable[[], Watch[deployment_service_pb2.ReplicaEvent]]


@dataclass(frozen=True, slots=True)
class Progress:
    """A deployment and its replicas, by index, at one moment."""

    deployment: deployment_pb2.Deployment
    replicas: tuple[deployment_pb2.Replica, ...]


OnProgress = Callable[[Progress], object]


class EngineFailed(RoundhouseError):
    """An engine dies before it is ready, again and again; `replica.last_exit` says how. Raised here, never sent."""

    reason = errors_pb2.ERROR_REASON_ENGINE_LOST

    def __init__(self, replica: deployment_pb2.Replica) -> None:
        last = replica.last_exit.stderr_lines[-1:]
        why = f"{describe_exit(replica.last_exit)}: {last[0]}" if last else describe_exit(replica.last_exit)
        super().__init__(f'replica "{replica_label(replica.name)}" dies before it is ready; last it ended with {why}')
        self.replica = replica


class RolledBack(RoundhouseError):
    """What was asked for did not work, and was taken back. Raised here, never sent."""

    reason = errors_pb2.ERROR_REASON_ENGINE_LOST


def describe_exit(end: deployment_pb2.EngineExit) -> str:
    """Returns how an engine ended, in two words."""
    if end.HasField("exit_code"):
        return f"exit code {end.exit_code}"
    return f"signal {end.signal}" if end.HasField("signal") else "an unknown exit code"


async def follow(name: str, deployments: WatchDeployments, replicas: WatchReplicas) -> AsyncGenerator[Progress | None]:
    """Yields the deployment with its replicas at every change, None while there is none, through broken connections."""
    all_deployments: Mirror[deployment_pb2.Deployment] = Mirror()
    its_replicas: Mirror[deployment_pb2.Replica] = Mirror()
    changes = Latest(None)
    failures: list[RoundhouseError] = []

    async def keep(mirror: Mirror[Any], watch: Callable[[], Watch[Any]]) -> None:
        try:
            await mirror.keep(watch, lambda: changes.set(None))
        except RoundhouseError as error:
            failures.append(error)
            changes.set(None)

    async with Background() as background:
        background.start(keep(all_deployments, deployments), "watch deployments")
        background.start(keep(its_replicas, replicas), "watch replicas")
        async for _ in changes.watch():
            if failures:
                raise failures[0]
            if all_deployments.is_whole and its_replicas.is_whole:
                found = all_deployments.items.get(name)
                yield None if found is None else Progress(found, _by_index(its_replicas))


async def wait_until_ready(
    name: str,
    deployments: WatchDeployments,
    replicas: WatchReplicas,
    timeout_s: float,
    on_event: OnProgress | None,
    *,
    wanted: deployment_pb2.Deployment | None = None,
) -> Progress:
    """Waits until exactly the wanted replicas are there and READY. Errors as `Deployments.wait_ready` says."""
    deaths, seen = _Deaths(), None
    try:
        async with asyncio.timeout(timeout_s), aclosing(follow(name, deployments, replicas)) as changes:
            async for progress in changes:
                if progress is None:
                    raise NotFound(f'deployment "{deployment_id(name)}" does not exist, or was deleted meanwhile')
                seen = progress
                if wanted is not None:
                    _require(wanted, progress.deployment)
                if on_event is not None:
                    on_event(progress)
                if is_ready(progress) and (wanted is None or progress.deployment.generation >= wanted.generation):
                    return progress
                if not _is_rolling(progress.deployment):  # else one that dies is why the change is taken back
                    deaths.check(progress)
    except TimeoutError:
        missing = "nothing is known of it" if seen is None else _missing(seen)
        raise DeadlineExceeded(
            f'deployment "{deployment_id(name)}" is not ready after {timeout_s:g} s: {missing}'
        ) from None
    raise AssertionError("following ends never")


async def wait_until_gone(
    name: str, deployments: WatchDeployments, replicas: WatchReplicas, timeout_s: float, on_event: OnProgress | None
) -> None:
    """Waits until there is no such deployment."""
    left = "its state"
    try:
        async with asyncio.timeout(timeout_s), aclosing(follow(name, deployments, replicas)) as changes:
            async for progress in changes:
                if progress is None:
                    return
                left = ", ".join(replica_label(each.name) for each in progress.replicas) or "its record"
                if on_event is not None:
                    on_event(progress)
    except NotFound:
        return
    except TimeoutError:
        raise DeadlineExceeded(
            f'deployment "{deployment_id(name)}" is still there after {timeout_s:g} s: {left}'
        ) from None


def is_ready(progress: Progress) -> bool:
    """Tells whether what runs is exactly what is wanted. Surplus replicas that still drain count against it."""
    deployment = progress.deployment
    return (
        not _is_rolling(deployment)
        and deployment.state == deployment_pb2.DEPLOYMENT_STATE_READY
        and deployment.observed_generation >= deployment.generation
        and len(progress.replicas) == deployment.replica_count
        and all(each.state == deployment_pb2.REPLICA_STATE_READY for each in progress.replicas)
    )


def _is_rolling(deployment: deployment_pb2.Deployment) -> bool:
    """Tells whether replicas are being replaced by such as run what is wanted."""
    rolled_out = _rolled_out(deployment)
    return rolled_out is not None and rolled_out.status == _FALSE and rolled_out.reason != _ROLLED_BACK


def _rolled_back(deployment: deployment_pb2.Deployment) -> str:
    """Returns why the last change was taken back; empty if it was not."""
    found = _rolled_out(deployment)
    return found.message if found is not None and found.reason == _ROLLED_BACK else ""


def _rolled_out(deployment: deployment_pb2.Deployment) -> condition_pb2.Condition | None:
    return next((each for each in deployment.conditions if each.type == "RolledOut"), None)


def _require(wanted: deployment_pb2.Deployment, seen: deployment_pb2.Deployment) -> None:
    """Raises Conflict if what is wanted now is no longer what was asked for."""
    what = f'deployment "{deployment_id(seen.name)}"'
    if seen.uid != wanted.uid:
        raise Conflict(f"{what} was deleted and created again meanwhile: list it, and ask again")
    end, before = _rolled_back(seen), _rolled_back(wanted)
    if seen.generation > wanted.generation and end and end != before:
        raise RolledBack(f"{what} is as it was before: {end}")
    if seen.generation > wanted.generation and seen.replica_count != wanted.replica_count:
        raise Conflict(
            f"{what} was asked to have a replica_count of {wanted.replica_count} (generation {wanted.generation}) and "
            f"meanwhile one of {seen.replica_count} (generation {seen.generation}), which holds: ask again to change it"
        )


class _Deaths:
    """Counts the deaths of engines since the wait began, or since they were last READY."""

    def __init__(self) -> None:
        self._restarts_before: dict[str, int] = {}

    def check(self, progress: Progress) -> None:
        """Raises EngineFailed for a replica that fails for good."""
        for each in progress.replicas:
            if each.state == deployment_pb2.REPLICA_STATE_READY:
                self._restarts_before[each.uid] = each.restart_count
            before = self._restarts_before.setdefault(each.uid, each.restart_count)
            is_dead = each.state == deployment_pb2.REPLICA_STATE_FAILED
            if each.restart_count - before + is_dead >= DEATHS_FOR_GOOD or _is_crash_loop(each):
                raise EngineFailed(each)


def _is_crash_loop(replica: deployment_pb2.Replica) -> bool:
    return any(
        each.type == "CrashLoop" and each.status == condition_pb2.CONDITION_STATUS_TRUE for each in replica.conditions
    )


def _by_index(replicas: Mirror[deployment_pb2.Replica]) -> tuple[deployment_pb2.Replica, ...]:
    return tuple(sorted(replicas.items.values(), key=lambda each: int(each.name.rpartition("/")[2])))


def _missing(progress: Progress) -> str:
    ready = sum(each.state == deployment_pb2.REPLICA_STATE_READY for each in progress.replicas)
    counts = f"{ready} of {progress.deployment.replica_count} replicas are READY"
    waiting = next((each for each in progress.replicas if each.state != deployment_pb2.REPLICA_STATE_READY), None)
    if waiting is None:
        return counts
    state = enum_name(deployment_pb2.ReplicaState, waiting.state).removeprefix("REPLICA_STATE_")
    message = f" ({waiting.message})" if waiting.message else ""
    return f'{counts}; "{replica_label(waiting.name)}" is {state}{message}'
