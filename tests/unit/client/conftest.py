"""A scripted cluster on the loop of the test, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from roundhouse.client import Client
from tests.support.scripted_cluster import ScriptedCluster, scripted_cluster
from tests.support.scripted_inference import ScriptedInference


@dataclass
class World:
    """What a test of the client meets."""

    client: Client
    cluster: ScriptedCluster
    inference: ScriptedInference
    address: str


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with scripted_cluster() as (serving, cluster, inference), Client(serving.address) as client:
        yield World(client, cluster, inference, serving.address)
