"""Sees the lives of engines through, one task each: from the start or the adoption to the last byte given back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from nodeagent.bundle import Bundles, Record
from nodeagent.engine import Engine
from nodeagent.gpus.release import memory_released
from nodeagent.hearing import Status
from nodeagent.launch import Launch, Started, launch, locate, sources_of
from nodeagent.life import Life
from nodeagent.model import Exit, Reading, Sample, Timing
from nodeagent.models.cache import HubCache, NotCached, cache_root
from nodeagent.models.hub import Hub
from nodeagent.venvs.venvs import Venv, Venvs
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec
from roundhouse.kit.clock import Clock
from roundhouse.kit.latest import Latest
from roundhouse.kit.tasks import Background

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What an engine is started with."""

    told: EngineSpec
    venv: Venv | None

    def close(self) -> None:
        if self.venv is not None:
            self.venv.close()


class Lives:
    """What runs at present. A context manager: leaving it lets go of the processes, which run on.

    `on_load` is called whenever an engine has said how busy it is, `on_lack` with a replica that never ran here and
    cannot, because files of its model are not there, and with what is missing.
    """

    def __init__(
        self,
        how: Launch,
        bundles: Bundles,
        samples: Latest[Sample | None],
        *,
        timing: Timing,
        clock: Clock,
        on_load: Callable[[], None],
        on_lack: Callable[[Engine, str], None],
    ) -> None:
        self._how, self._bundles, self._samples = how, bundles, samples
        self._timing, self._clock, self._on_load, self._on_lack = timing, clock, on_load, on_lack
        self._following = Background()
        self._stops: dict[Engine, asyncio.Task[None]] = {}
        self._preparing: dict[Engine, asyncio.Task[_Prepared]] = {}
        self._cache = HubCache(cache_root(how.environ))
        self._hub = Hub(how.environ, self._cache)
        self._venvs = Venvs(how.venv_dir or bundles.root.parent / "venvs", how.environ, how.needs)

    async def __aenter__(self) -> Self:
        await self._following.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in list(self._stops):
            await self._cancel_stop(engine)
        await self._following.__aexit__(kind, error, trace)

    def start(self, engine: Engine, cluster_id: str) -> None:
        """Starts a new life of an engine that has none."""
        record = engine.prepare()  # at once, so that nobody starts it twice
        self._following.start(self._start(engine, record, cluster_id), name=f"life of {engine.assigned.replica}")

    def adopt(self, engine: Engine, started: Started) -> None:
        """Goes on with a life that an earlier agent started."""
        life = self._begin(engine, started)
        self._following.start(self._follow(engine, life), name=f"life of {engine.assigned.replica}")

    def stop(self, engine: Engine) -> None:
        """Ends the present life with the grace that the engine has been given; a new grace replaces the one before."""
        life, grace_s = engine.life, engine.stop_grace_s
        if life is None or grace_s is None:
            if engine in self._preparing:
                for each in sources_of(EngineSpec.FromString(engine.assigned.spec)):
                    self._hub.leave_nothing(each.repository.id, each.repository.revision)
                self._preparing[engine].cancel()
            return  # it is being started, and stopped as soon as there is something to stop; or it is all but gone
        before = self._stops.pop(engine, None)
        if before is not None:
            before.cancel()
        self._stops[engine] = asyncio.create_task(
            life.stop(grace_s, hands_over=engine.hands_over), name=f"stop of {engine.assigned.replica}"
        )

    async def _start(self, engine: Engine, record: Record, cluster_id: str) -> None:
        try:
            prepared = await self._prepare(engine)
            if prepared is None:
                return
            with contextlib.closing(prepared):
                started = await launch(
                    self._how,
                    self._bundles,
                    engine.assigned,
                    prepared.told,
                    record,
                    venv=prepared.venv,
                    device="cuda" if self._real_gpus(engine) else "cpu",
                    cluster_id=cluster_id,
                    time_s=self._clock.now(),
                )
        except Exception as error:
            if not isinstance(error, OSError):  # an OSError is for the user to cure, and says all
                log.error("starting an engine failed", replica=engine.assigned.replica, exc_info=error)
            engine.bundle = self._bundles.find(engine.assigned.replica_uid)
            if isinstance(error, NotCached) and engine.bundle is None and engine.stop_grace_s is None:
                self._on_lack(engine, str(error))
                return
            engine.die(Exit(), f"the engine cannot be started: {self._words(error)}")
            engine.vanish()
        else:
            await self._follow(engine, self._begin(engine, started))

    async def _gather(self, engine: Engine) -> _Prepared:
        told = await locate(engine.assigned, self._hub, self._cache, engine.fetch)
        venv = await self._venvs.ready(told.virtual_env, engine.build) if told.HasField("virtual_env") else None
        return _Prepared(told, venv)

    async def _prepare(self, engine: Engine) -> _Prepared | None:
        """Returns what the engine is started with, once all that is here; None if it is stopped meanwhile."""
        preparing = asyncio.create_task(self._gather(engine), name=f"preparation of {engine.assigned.replica}")
        self._preparing[engine] = preparing
        if engine.stop_grace_s is not None:
            preparing.cancel()
        try:
            await asyncio.wait({preparing})
            if not preparing.cancelled():
                return preparing.result()
        finally:
            del self._preparing[engine]
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        engine.die(Exit(), "")
        engine.vanish()
        return None

    def _words(self, error: Exception) -> str:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk of {error.filename or self._bundles.root} is full: make room on it"
        return str(error)

    def _begin(self, engine: Engine, started: Started) -> Life:
        def hear(status: Status) -> None:
            engine.hear(status)
            self._on_load()

        life = Life(started, hear, timing=self._timing, has_served=engine.has_served)
        engine.begin(life)
        return life

    async def _follow(self, engine: Engine, life: Life) -> None:
        try:
            async with life:
                if engine.stop_grace_s is not None:  # it was asked for while the process was being started
                    self.stop(engine)
                exit_, fault = await life.follow()
                engine.die(exit_, fault)
        except Exception as error:
            # Whatever is wrong with following it, an engine must not go on with nobody to look after it.
            log.error(
                "an engine is ended, since it can no longer be followed",
                replica=engine.assigned.replica,
                exc_info=error,
            )
            if engine.life is not None:
                engine.die(Exit(), f"the engine was ended, since it could not be followed: {error!r}")
        await life.sweep()
        await self._cancel_stop(engine)
        uuids = [each.uuid for each in self._real_gpus(engine)]
        if not await memory_released(self._samples, engine.assigned.replica_uid, uuids, since_s=self._clock.now()):
            log.warning("the memory of an engine is still in use after its end", replica=engine.assigned.replica)
        engine.vanish()

    async def _cancel_stop(self, engine: Engine) -> None:
        stop = self._stops.pop(engine, None)
        if stop is not None:
            stop.cancel()
            await asyncio.gather(stop, return_exceptions=True)

    def _real_gpus(self, engine: Engine) -> Sequence[Reading]:
        sample = self._samples.get()
        readings = () if sample is None else sample.gpus
        return [each for each in readings if each.uuid in engine.assigned.gpu_uuids and not each.is_simulated]
