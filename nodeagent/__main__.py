"""Starts the node agent: reads what it is told, builds its parts, and lets go of the engines when it is told to end."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from nodeagent import config as settings
from nodeagent.aside import aside
from nodeagent.assignment import AssignmentFile
from nodeagent.bundle import Bundles
from nodeagent.config import PRIVATE_VARIABLES, Config, Simulation
from nodeagent.credentials import Credentials
from nodeagent.gpus.driver import Driver
from nodeagent.gpus.host import PsutilHost
from nodeagent.gpus.nvml import NvmlGpus
from nodeagent.gpus.sampler import FIRST_SAMPLE_S, Gpus, Sampler
from nodeagent.gpus.script import Script, parse
from nodeagent.gpus.simulated import SimulatedGpus
from nodeagent.identity import load, machine_id
from nodeagent.launch import Launch
from nodeagent.log_sender import LogSender
from nodeagent.model import Occupant, Sample, Timing
from nodeagent.models.cache import HubCache, cache_root
from nodeagent.models.cached import CachedModels
from nodeagent.models.hub import Hub
from nodeagent.models.lookup import Models, builtin_directory
from nodeagent.process import boot_id
from nodeagent.report import Reporter, Self
from nodeagent.strays import Strays
from nodeagent.supervisor import Supervisor
from nodeagent.uplink import Dial, Uplink
from nodeagent.venvs.collector import Collector
from roundhouse.internal.v1 import agent_service_pb2
from roundhouse.kit import logs, process
from roundhouse.kit.channel import open_channel
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.errors import Usage
from roundhouse.kit.files import own_directory
from roundhouse.kit.latest import Latest

log = structlog.get_logger()


def main() -> int:
    """Runs the agent with the arguments of this process; returns its exit status."""
    environ = dict(os.environ)
    for each in PRIVATE_VARIABLES:
        os.environ.pop(each, None)  # what is started from here inherits the rest
    return process.run(lambda stop: _main(sys.argv[1:], environ, stop), "nodeagent")


async def _main(arguments: Sequence[str], environ: Mapping[str, str], stop: asyncio.Event) -> None:
    config = settings.parse(arguments, environ)
    logs.configure(config.log_level)
    await serve(config, {name: each for name, each in environ.items() if name not in PRIVATE_VARIABLES}, stop)


async def serve(config: Config, environ: Mapping[str, str], stop: asyncio.Event) -> None:
    """Runs the agent until `stop` is set. Engines run on after it, unless they are to be stopped with it."""
    with own_directory(config.state_dir, "node agent") as state_dir:
        node = load(state_dir, config.node_id)
        clock, hint = SystemClock(), asyncio.Event()
        occupants: Latest[tuple[Occupant, ...]] = Latest(())
        samples: Latest[Sample | None] = Latest(None)
        sampler = Sampler(
            await _gpus(config, node.node_id),
            PsutilHost([state_dir, cache_root(environ)]),
            occupants,
            samples,
            period_s=config.sample_period_s,
            clock=clock,
            on_sample=hint.set,  # what was measured is reported at once, so that it is not stale twice
        )
        await sampler.first()
        venv_dir = config.venv_dir or state_dir / "venvs"
        how = Launch(environ, host=config.engine_host, ports=config.engine_ports, venv_dir=venv_dir)
        bundles, kept = Bundles(state_dir / "engines"), AssignmentFile(state_dir / "assignment.json")
        supervisor = Supervisor(
            how,
            bundles,
            kept,
            occupants,
            samples,
            timing=Timing(watch_period_s=config.sample_period_s),
            clock=clock,
            on_change=hint.set,
        )
        cache = HubCache(cache_root(environ))
        hub = Hub(environ, cache)
        cached = CachedModels(cache, supervisor.models, on_change=hint.set)
        sender = LogSender(bundles)
        environments = Collector(venv_dir, environ, supervisor.virtual_envs)
        strays = Strays(how, bundles.root, lambda: {each.replica_uid for each in supervisor.reports()}, clock)
        async with supervisor, Models(builtin_directory, cache, hub, on_change=hint.set) as models:
            await sampler.take()  # once more, now that it is known which memory is that of our engines
            who = Self(
                node,
                str(uuid.uuid4()),
                boot_id(),
                machine_id(boot_id()),
                config.labels or {},
                config.taints,
                capabilities=("logs", "hub") if hub.is_online else ("logs",),
            )
            reporter = Reporter(who, supervisor, models, occupants, samples, cached=cached.facts)

            async def take(message: agent_service_pb2.JoinResponse) -> None:
                if await supervisor.take(message):
                    models.probe(message.model_probes, message.hub_probes)
                    cached.delete(message.cached_model_deletions)
                    sender.send(message.log_requests)

            uplink = Uplink(
                config.control_plane,
                _dial(config, state_dir, node.node_id, clock),
                report=reporter.report,
                take=take,
                hint=hint,
                random=random.random,
                beside=sender.connected,
            )
            log.info("node agent started", node=node.node_id, control_plane=config.control_plane)
            async with asyncio.TaskGroup() as group:
                supervising = group.create_task(supervisor.run(), name="supervisor")
                others = [
                    group.create_task(sampler.run(), name="sampler"),
                    group.create_task(uplink.run(), name="uplink"),
                    group.create_task(cached.run(), name="model cache"),
                    group.create_task(environments.run(), name="environments"),
                    group.create_task(strays.run(), name="stray engines"),
                ]
                await stop.wait()
                supervising.cancel()
                if config.stop_grace_s is not None:
                    await supervisor.stop_all(config.stop_grace_s)
                for part in others:
                    part.cancel()
        log.info("node agent ended", node=node.node_id)


def _dial(config: Config, state_dir: Path, node_id: str, clock: SystemClock) -> Dial:
    if config.tls_ca is None:
        return open_channel
    return Credentials(state_dir, node_id, ca=config.tls_ca, token=config.join_token, clock=clock).dial


async def _gpus(config: Config, node_id: str) -> Gpus:
    real = NvmlGpus(Driver())
    simulation = config.simulation
    if simulation is None or (config.simulates_only_if_none and await _are_there(real)):
        return real
    return SimulatedGpus(node_id, _script(simulation))


async def _are_there(gpus: NvmlGpus) -> bool:
    try:
        async with asyncio.timeout(FIRST_SAMPLE_S):
            return bool(await aside(lambda: gpus.sample(()), "nvml"))
    except TimeoutError:
        raise Usage(f"nvml has not answered for {FIRST_SAMPLE_S:g} s: mend the driver") from None


def _script(simulation: Simulation | Path) -> Script:
    if isinstance(simulation, Simulation):
        return Script(simulation.count, simulation.bytes_each)
    try:
        return parse(simulation.read_text())
    except (OSError, UnicodeError) as error:
        raise Usage(f"the script of simulated GPUs cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
