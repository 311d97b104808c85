"""One cluster that serves the demo model, shared by the tests that leave it as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from roundhouse.client import Client, deployment
from tests.support.cluster import Cluster, cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Cluster, Client]]:
    """A cluster with the demo model, 3 replicas on 2 GPUs, all READY."""
    folder: Path = tmp_path_factory.mktemp("demo")
    async with cluster(folder) as (it, client):
        await client.deployments.create(deployment("demo", builtin="demo", replica_count=3, gpu_count=2))
        await client.deployments.wait_ready("demo", timeout_s=120)
        yield it, client
