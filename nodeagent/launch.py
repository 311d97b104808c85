"""Starts one life of an engine, or finds the one that an earlier agent started."""

from __future__ import annotations

import asyncio
import functools
import os
import secrets
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nodeagent.aside import aside
from nodeagent.bundle import Bundle, Bundles, Record
from nodeagent.model import Assigned, Desired, ProcessId
from nodeagent.models.cache import HubCache, NotCached
from nodeagent.models.hub import Hub
from nodeagent.models.place import find_model
from nodeagent.process import Process, adopt, boot_id, end_session, find, spawn
from nodeagent.venvs.venvs import Venv
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.times import to_timestamp
from roundhouse.v1.deployment_pb2 import ModelSource

ENGINE_COMMAND = (sys.executable, "-m", "engines")
ENGINE_NEEDS = ("engines.__main__", "engines.backends.torch_lm.load")  # what it imports before it serves
_KEY_BYTES = 32
Progress = Callable[[str, int, int], None]  # a repository, bytes that have come, and all


@dataclass(frozen=True, slots=True)
class Launch:
    """How engines are started on this node. The directory is given to the command as `--bundle DIR`."""

    environ: Mapping[str, str]
    command: Sequence[str] = ENGINE_COMMAND
    host: str = "127.0.0.1"
    ports: tuple[int, int] = (0, 0)
    needs: Sequence[str] = ENGINE_NEEDS  # modules without which the command cannot run
    venv_dir: Path | None = None  # of environments that deployments have to themselves; None: beside the bundles

    def arguments(self, bundle: Bundle) -> Sequence[str]:
        """Returns what tells the process of one replica from all others."""
        return (self.option, str(bundle.path))

    @property
    def option(self) -> str:
        """Returns what stands before the directory in the command line of an engine."""
        return "--bundle"


@dataclass(frozen=True, slots=True)
class Started:
    """An engine process, and what it was told."""

    bundle: Bundle
    spec: engine_spec_pb2.EngineBundle
    key: bytes = field(repr=False)
    process: Process


async def locate(assigned: Assigned, hub: Hub, cache: HubCache, tell: Progress) -> engine_spec_pb2.EngineSpec:
    """Returns what the engine of a replica is told, with paths in place of repositories. Fetches what is not here.

    Raises OSError, that is NotCached if files are not here and cannot be fetched. May be cancelled.
    """
    told = engine_spec_pb2.EngineSpec.FromString(assigned.spec)
    if told.unopened_names:
        names = ", ".join(told.unopened_names)
        raise OSError(
            f"the control plane cannot open its secrets {names}: give it back the key that it had (--secrets-key), or "
            "delete the deployment and create it again"
        )
    for source in sources_of(told):
        if source.WhichOneof("source") == "builtin":
            continue
        try:
            directory = await aside(functools.partial(find_model, source, cache), "model lookup")
        except NotCached as lack:
            if source.WhichOneof("source") != "repository":
                raise
            repository = source.repository
            try:
                await hub.fetch(repository.id, repository.revision, functools.partial(tell, repository.id))
            except NotCached as error:
                raise NotCached(f"{lack}; {error}") from error
            directory = await aside(functools.partial(find_model, source, cache), "model lookup")
        source.path = str(directory)
    return told


def sources_of(spec: engine_spec_pb2.EngineSpec) -> Sequence[ModelSource]:
    """Returns the models of an engine, as parts of its specification."""
    found = [spec.model]
    if spec.options.speculation.HasField("draft_model"):
        found.append(spec.options.speculation.draft_model)
    return [each for each in found if each.WhichOneof("source") is not None]


async def launch(
    how: Launch,
    bundles: Bundles,
    assigned: Assigned,
    told: engine_spec_pb2.EngineSpec,
    record: Record,
    *,
    venv: Venv | None = None,
    device: str,
    cluster_id: str,
    time_s: float,
) -> Started:
    """Starts an engine for a replica on `device` (`cpu` or `cuda`); raises OSError if that is not possible here.

    venv: the environment that it runs in, if not that of the agent; the engine keeps it from being deleted.
    """
    lowest, highest = how.ports
    spec = engine_spec_pb2.EngineBundle(
        engine_uuid=str(uuid.uuid4()),
        replica=assigned.replica,
        replica_uid=assigned.replica_uid,
        placement_epoch=assigned.placement_epoch,
        deployment_generation=assigned.deployment_generation,
        spec=told,
        gpu_uuids=assigned.gpu_uuids,
        reserved_memory_bytes=assigned.reserved_bytes,
        device=device,
        listen_host=how.host,
        lowest_port=lowest,
        highest_port=highest,
        start_time=to_timestamp(time_s),
        cluster_id=cluster_id,
    )
    key = secrets.token_bytes(_KEY_BYTES)
    bundle = await asyncio.to_thread(bundles.begin, spec, key, replace(record, process=None))
    process = spawn(
        [*_command(how, venv), *how.arguments(bundle)],
        env=environment(how.environ, spec, venv),
        stdout=bundle.stdout,
        stderr=bundle.stderr,
        descriptors=() if venv is None else (venv.descriptor,),
    )
    try:
        # An agent that dies before this is on disk finds the process by its command line.
        bundle.remember(replace(record, process=process.identity))
    except OSError:
        process.release()
        await end_session(process.identity, grace_s=0)
        raise
    return Started(bundle, spec, key, process)


def is_same(told: engine_spec_pb2.EngineSpec, assigned: bytes) -> bool:
    """Tells whether an engine was told what is assigned. The model of a replica stays, and was told as a path."""
    if told.SerializeToString(deterministic=True) == assigned:
        return True
    return _without_models(told) == _without_models(engine_spec_pb2.EngineSpec.FromString(assigned))


def _without_models(spec: engine_spec_pb2.EngineSpec) -> engine_spec_pb2.EngineSpec:
    bare = engine_spec_pb2.EngineSpec()
    bare.CopyFrom(spec)
    bare.ClearField("model")
    if bare.options.speculation.HasField("draft_model"):
        bare.options.speculation.ClearField("draft_model")
    return bare


def _command(how: Launch, venv: Venv | None) -> Sequence[str]:
    # Without the working directory, whose packages would go before those of the environment.
    return how.command if venv is None else (str(venv.python), "-P", *how.command[1:])


def environment(
    base: Mapping[str, str], spec: engine_spec_pb2.EngineBundle, venv: Venv | None = None
) -> Mapping[str, str]:
    """Returns the environment of an engine: the agent's own, the deployment's, and its GPUs, which nobody overrides."""
    if venv is not None:
        base = _activated(base, venv)
    wanted = {each.name: each.value for each in spec.spec.env}
    # Empty for the processors, so that no library there opens a GPU that was promised to somebody else.
    visible = ",".join(spec.gpu_uuids) if spec.device == "cuda" else ""
    return {**base, **wanted, "CUDA_VISIBLE_DEVICES": visible}


def _activated(base: Mapping[str, str], venv: Venv) -> Mapping[str, str]:
    kept = {name: value for name, value in base.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    path = os.pathsep.join([str(venv.python.parent), *filter(None, [base.get("PATH")])])
    return {**kept, "VIRTUAL_ENV": str(venv.path), "PATH": path}


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the agent before left of a replica."""

    spec: engine_spec_pb2.EngineBundle
    key: bytes = field(repr=False)
    record: Record
    process: Process | None  # it runs, or has just ended and can still say how
    lost: ProcessId | None  # it has ended; its descendants may be left


def recover(how: Launch, bundle: Bundle) -> Recovered:
    """Returns what there is of a life in a directory; raises OSError or ValueError if that cannot be told."""
    spec, record, key = bundle.spec(), bundle.record(), bundle.key()
    identity = record.process or find(how.arguments(bundle))
    if identity is None or identity.boot_id != boot_id():
        return Recovered(spec, key, record, process=None, lost=None)
    process = None if record.is_dead else adopt(identity)
    return Recovered(spec, key, record, process, lost=identity if process is None else None)


async def discard(how: Launch, bundle: Bundle) -> None:
    """Ends the engine of a directory that cannot be read, so that it cannot be called either."""
    stray = find(how.arguments(bundle))
    if stray is not None:
        await end_session(stray, grace_s=0)


def assigned_in(spec: engine_spec_pb2.EngineBundle) -> Assigned:
    """Returns the replica as it was assigned when its last life started."""
    return Assigned(
        replica=spec.replica,
        replica_uid=spec.replica_uid,
        placement_epoch=spec.placement_epoch,
        deployment_generation=spec.deployment_generation,
        desired=Desired.RUNNING,
        spec=spec.spec.SerializeToString(deterministic=True),
        gpu_uuids=tuple(spec.gpu_uuids),
        reserved_bytes=spec.reserved_memory_bytes,
        drain_grace_s=0.0,
    )
