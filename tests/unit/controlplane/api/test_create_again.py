"""A creation that is asked for again: with its id the same answer, and one deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controlplane.api.admission import Admission
from controlplane.api.creating import Creating
from controlplane.api.families import Families
from controlplane.api.mutations import Mutations
from controlplane.api.outlook import Outlook
from controlplane.api.resolving import Resolving
from controlplane.api.sizing import Sizing
from controlplane.api.statuses import Statuses
from controlplane.api.vault import Vault
from controlplane.config import PlacementDefaults
from controlplane.fleet.intent import Intent
from controlplane.fleet.models import Models
from controlplane.fleet.registry import Registry
from controlplane.secrets import Secrets
from controlplane.store.protocol import Entry
from controlplane.store.sqlite import SqliteStore, open_sqlite
from roundhouse.kit.errors import (
    AlreadyExists,
)
from roundhouse.v1 import deployment_service_pb2 as pb
from tests.support.clock import FakeClock
from tests.support.plane import Plane, reason_of, refused, wanted
from tests.support.scripted_agent import ScriptedAgent


async def test_a_request_id_makes_the_call_repeatable(plane: Plane) -> None:
    async with ScriptedAgent("one").joined(plane.address):
        request = pb.CreateDeploymentRequest(deployment=wanted(), request_id="once")
        first = await plane.deployments.CreateDeployment(request)
        assert await plane.deployments.CreateDeployment(request) == first
        other = pb.CreateDeploymentRequest(deployment=wanted(replica_count=2), request_id="once")
        error = await refused(plane.deployments.CreateDeployment(other))
        assert isinstance(error, AlreadyExists)
        assert reason_of(error) == "MUTATION_EXISTS"
        scale = pb.ScaleDeploymentRequest(name="deployments/chat", replica_count=2, request_id="once")
        assert reason_of(await refused(plane.deployments.ScaleDeployment(scale))) == "MUTATION_EXISTS"


async def test_a_repeated_call_that_overlaps_the_write_of_the_first_gets_its_answer(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "store") as store:
        first = await creating(store).create(ONCE)
        assert await creating(Overtaken(store)).create(ONCE) == first


ONCE = pb.CreateDeploymentRequest(deployment=wanted(), request_id="once", allow_pending=True)


class Overtaken:
    """A store of which the first look comes just before a write, and every later one behind it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store, self._has_looked = store, False

    async def get(self, key: str) -> Entry | None:
        entry = await self._store.get(key) if self._has_looked else None
        self._has_looked = True
        return entry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def creating(store: Any) -> Creating:
    """Serves `CreateDeployment` in a fleet without nodes."""
    clock = FakeClock()
    registry, intent = Registry(clock, "cluster"), Intent(store)
    admission = Admission(intent, Outlook(intent, registry))
    return Creating(
        store,
        Mutations(store, intent, clock, lambda: None),
        Statuses(intent, registry, epoch=store.epoch, clock=clock),
        Sizing(registry, Resolving(Families(store, clock), Models(registry)), admission),
        admission,
        Vault(Secrets(bytes(32)), is_private=True),
        PlacementDefaults("idle_first"),
        clock,
    )
