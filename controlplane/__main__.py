"""`python -m controlplane`: one control plane, or with `--role gateway` a gateway. Wires, and decides nothing else.

Exit status: 0 after SIGTERM or SIGINT; 1 for a fault of ours, with a traceback in the log; 2 if it is started wrongly,
or if its port or state directory is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog

from controlplane import extensions, gateway_role
from controlplane.api.access import AccessApi
from controlplane.api.admission import Admission
from controlplane.api.agent import AgentApi
from controlplane.api.caches import Caches
from controlplane.api.catalog import CatalogApi
from controlplane.api.chronicle import Chronicle
from controlplane.api.completing import Completing
from controlplane.api.cordoning import Cordoning
from controlplane.api.creating import Creating
from controlplane.api.deleting import Deleting
from controlplane.api.deployments import DeploymentApi
from controlplane.api.enrollment import EnrollmentApi
from controlplane.api.event_log import EventLog
from controlplane.api.events import EventApi
from controlplane.api.families import Families
from controlplane.api.fleet import FleetApi
from controlplane.api.logs import Logs
from controlplane.api.mutations import Mutations
from controlplane.api.node_views import NodeViews
from controlplane.api.nodes import NodeApi
from controlplane.api.outlook import Outlook
from controlplane.api.planning import Planning
from controlplane.api.resolving import Resolving
from controlplane.api.rollouts import Rollouts
from controlplane.api.scaling import Scaling
from controlplane.api.sizing import Sizing
from controlplane.api.statuses import Statuses
from controlplane.api.updating import Updating
from controlplane.api.vault import Vault, require_no_secrets
from controlplane.api.watches import Watches
from controlplane.auth.edge import open_edge
from controlplane.auth.gate import require_all_rated
from controlplane.cluster import begin_term
from controlplane.config import STORE, Config, parse
from controlplane.fleet.assignments import Assignments
from controlplane.fleet.deletions import Deletions
from controlplane.fleet.intent import Intent
from controlplane.fleet.logs import LogWishes
from controlplane.fleet.models import Models
from controlplane.fleet.registry import Registry
from controlplane.fleet.routes import RouteKeeper
from controlplane.gateway.service import open_gateway
from controlplane.gateway_config import wants_gateway
from controlplane.placement.strategies import DEFAULT_STRATEGY, STRATEGIES, Strategy, canonical_strategy
from controlplane.reconcile.loop import Reconciler
from controlplane.secrets import Secrets, load_key
from controlplane.store.protocol import Store
from controlplane.store.sqlite import open_sqlite
from roundhouse.internal.v1 import agent_service_pb2, enrollment_service_pb2, fleet_service_pb2
from roundhouse.kit import logs, process
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.files import announced, own_directory
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Serving, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tasks import Loop, looping
from roundhouse.kit.tls import is_loopback
from roundhouse.v1 import (
    access_service_pb2,
    catalog_service_pb2,
    deployment_service_pb2,
    event_service_pb2,
    inference_service_pb2,
    node_service_pb2,
)

NAME = "control plane"
# Every report is some dozens of objects that live until the next. At Python's own threshold collections would look
# through a fleet of them several times a second, and find nothing: what is not shared in a ring frees itself.
GC_THRESHOLD = 50_000

log = structlog.get_logger()


def main() -> None:
    """Runs the control plane, or what else it is told to be, and ends the process."""
    arguments = sys.argv[1:]
    if wants_gateway(arguments):
        sys.exit(process.run(lambda stop: gateway_role.run(arguments, os.environ, stop), gateway_role.NAME))
    sys.exit(process.run(lambda stop: _run(arguments, os.environ, stop), NAME))


async def _run(arguments: Sequence[str], environ: Mapping[str, str], stop: asyncio.Event) -> None:
    strategies = extensions.strategies(STRATEGIES)
    names = sorted(strategies, key=lambda name: name != DEFAULT_STRATEGY)
    config = parse(
        arguments, environ, strategies=names, strategy_of=lambda spelling: canonical_strategy(spelling, strategies)
    )
    logs.configure(config.log_level)
    async with running(config, strategies):
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        await stop.wait()
        log.info("control plane stops")


@contextlib.asynccontextmanager
async def running(config: Config, strategies: Mapping[str, Strategy] = STRATEGIES) -> AsyncIterator[Serving]:
    """Runs a control plane for the block; its address stands in the file `address` of its state directory meanwhile.

    If one of its loops fails, the block is cancelled and the failure raised: a control plane that shows old facts is
    worse than one that starts again.
    """
    with own_directory(config.state_dir, NAME) as state_dir:
        address = state_dir / "address"
        address.unlink(missing_ok=True)
        async with open_sqlite(state_dir / STORE) as store, _open(config, store, strategies) as serving:
            with announced(address, serving.address):
                log.info("control plane serving", address=serving.address, state_dir=str(state_dir))
                yield serving


@contextlib.asynccontextmanager
async def _open(config: Config, store: Store, strategies: Mapping[str, Strategy]) -> AsyncIterator[Serving]:
    if not config.listen.is_private:
        await require_no_secrets(store)
    term = await begin_term(store)
    clock = SystemClock()
    registry = Registry(clock, term.cluster_id, config.node_lease_s, term=term.number)
    intent = Intent(store)
    keeper = RouteKeeper(intent, registry, config.routing_policy)
    reconciler = Reconciler(store, registry, term=term.number, clock=clock, strategies=strategies)
    models, deletions, log_wishes = Models(registry), Deletions(), LogWishes()
    assignments = Assignments(intent, models, deletions, log_wishes, cluster_id=term.cluster_id, term=term.number)
    families = Families(store, clock)
    resolving = Resolving(families, models)
    caches = Caches(registry, intent, deletions, epoch=store.epoch)
    outlook = Outlook(intent, registry, term=term.number, strategies=strategies)
    admission = Admission(intent, outlook)
    sizing = Sizing(registry, resolving, admission)
    statuses = Statuses(intent, registry, epoch=store.epoch, clock=clock)
    secrets = Secrets(load_key(config.secrets_key or config.state_dir / "secrets.key"))
    mutations = Mutations(store, intent, clock, reconciler.hint, key=secrets.hash_key)
    completing = Completing(store, intent, registry, statuses, sizing, reconciler.hint)
    rollouts = Rollouts(store, intent, statuses, clock, reconciler.hint)
    vault = Vault(secrets, is_private=config.listen.is_private)
    creating = Creating(store, mutations, statuses, sizing, admission, vault, config.placement, clock)
    deployments = DeploymentApi(
        creating,
        Updating(store, mutations, statuses, sizing, admission, vault, clock),
        Scaling(store, mutations, statuses, admission, clock),
        Deleting(store, mutations, statuses, clock),
        Planning(creating, intent, outlook),
        statuses,
        Watches(store, intent, statuses),
        Logs(registry, intent, statuses, log_wishes),
        epoch=store.epoch,
    )
    views = NodeViews(registry, intent, clock=clock)
    nodes = NodeApi(registry, intent, views, Cordoning(store, mutations, views, clock), epoch=store.epoch)
    catalog = CatalogApi(families, resolving, caches, epoch=store.epoch)
    agents = AgentApi(registry, assignments, secrets, log_wishes, reconciler.hint_soon)
    events = EventLog(store, clock)
    chronicle = Chronicle(statuses, registry, events)
    agent_port: Latest[int | None] = Latest(None)

    def is_known(node: str) -> bool:
        return any(node in each for each in (registry.known, intent.assignments.rows, intent.nodes.rows))

    log.info("term begins", cluster=term.cluster_id, term=term.number)
    async with (
        intent.kept(),
        events.kept(),
        open_edge(config, store, clock, is_known) as edge,
        open_gateway(keeper.routes, settings=config.admission) as gateway,
    ):
        is_private = config.listen.is_private
        access = AccessApi(edge.tokens, edge.enrolling, clock, epoch=store.epoch, is_private=is_private)
        enrollment = EnrollmentApi(edge.enrolling, agent_port)
        known = None if edge.guard is None else edge.tokens.known
        fleet = FleetApi(keeper.routes, known, count_gateways=keeper.count_gateways)
        services = [
            Service(deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"], deployments),
            Service(catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"], catalog),
            Service(node_service_pb2.DESCRIPTOR.services_by_name["NodeService"], nodes),
            Service(event_service_pb2.DESCRIPTOR.services_by_name["EventService"], EventApi(events, epoch=store.epoch)),
            Service(agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"], agents),
            Service(fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"], fleet),
            Service(inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"], gateway),
            Service(access_service_pb2.DESCRIPTOR.services_by_name["AccessService"], access),
            Service(enrollment_service_pb2.DESCRIPTOR.services_by_name["EnrollmentService"], enrollment),
        ]
        require_all_rated(services)
        loops: Mapping[str, Loop] = {
            "leases": registry.keep_leases,
            "routes": keeper.run,
            "statuses": lambda: statuses.run(reconciler.outcome.watch),
            "node views": lambda: views.run(reconciler.outcome.watch),
            "reconcile": reconciler.run,
            "completing": completing.run,
            "rollouts": rollouts.run,
            "mutations": mutations.keep_pruned,
            "chronicle": chronicle.run,
            "events": events.run,
        }
        async with (
            serve(config.listen, services, grace_s=config.stop_grace_s, gate=edge.guard, beside=edge.beside) as serving,
            looping(loops),
            gateway.ending(),
        ):
            for address in serving.beside:
                agent_port.set(int(address.rpartition(":")[2]))
                log.info("agents join with certificates", address=address)
            if edge.guard is None and not is_loopback(config.listen.host):
                log.warning("everybody who reaches this port may run code on the nodes", address=serving.address)
            yield serving


if __name__ == "__main__":
    main()
