"""A cluster that asks callers who they are: an agent joins by a token, people are served by theirs, others are not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from roundhouse.client import Client, deployment
from roundhouse.kit.errors import Forbidden, Unauthenticated
from roundhouse.v1 import node_pb2
from tests.support.cluster import PATIENCE_S, Cluster, engine_pids, eventually, node_ready
from tests.support.secured import made_certs

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

START_S = 300.0  # of an engine, on a machine that does other things as well
SAMPLING: Any = {"temperature": 0.0, "max_tokens": 24}


@dataclass
class House:
    """A cluster of real processes, its certificates, and the secrets that were given out."""

    it: Cluster
    certs: Path
    secrets: dict[str, str]

    @property
    def ca(self) -> Path:
        return self.certs / "ca.pem"

    def client(self, who: str) -> Client:
        return Client(self.it.address, ca=self.ca, token=self.secrets[who])

    def start_agent(self, token: str = "", node: str = "a", **environ: str) -> None:
        """Starts an agent with one GPU, with a join token in its environment if there is one."""
        os.environ.update({"ROUNDHOUSE_JOIN_TOKEN": token} if token else {})
        try:
            self.it.start_agent("--simulate-gpus", "1x8GiB", "--tls-ca", str(self.ca), node=node)
        finally:
            os.environ.pop("ROUNDHOUSE_JOIN_TOKEN", None)

    def said(self, node: str) -> str:
        """Returns what an agent has logged."""
        return (self.it.folder / f"nodeagent-{node}.log").read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """The demo model on a node that joined by a token, and a token for each role."""
    folder = tmp_path_factory.mktemp("access")
    house = House(Cluster(folder), made_certs(folder), {})
    try:
        await house.it.start_control_plane("--certs", str(house.certs), "--auth")
        house.secrets["operator"] = (folder / "controlplane/operator.token").read_text().strip()
        async with house.client("operator") as client:
            house.secrets["join"] = (await client.access.create_join_token()).secret
            house.start_agent(house.secrets["join"])
            await node_ready(client)
            for role in ("viewer", "inference"):
                house.secrets[role] = (await client.access.create(role, role=role, tenant="blue")).secret
            await client.deployments.create(deployment("demo", builtin="demo"))
            await client.deployments.wait_ready("demo", timeout_s=START_S)
        yield house
    finally:
        await house.it.stop()


async def test_a_request_is_served_to_an_inference_token_and_to_no_viewer(house: House) -> None:
    async with house.client("inference") as client:
        assert "19" in await client.chat("demo", "What is 12 + 7?", **SAMPLING).text()
        with pytest.raises(Forbidden, match="ScaleDeployment needs the role operator"):
            await client.deployments.scale("demo", 2)
    async with house.client("viewer") as client:
        assert [each.name for each in (await client.deployments.list()).deployments] == ["deployments/demo"]
        with pytest.raises(Forbidden, match="Chat needs the role inference"):
            await client.chat("demo", "What is 12 + 7?", **SAMPLING).text()
    async with Client(house.it.address, ca=house.ca) as client:
        with pytest.raises(Unauthenticated):
            await client.chat("demo", "What is 12 + 7?", **SAMPLING).text()


def environments_of(pids: list[int]) -> list[bytes]:
    return [Path(f"/proc/{pid}/environ").read_bytes() for pid in pids]


def contents(folder: Path, *patterns: str) -> list[bytes]:
    return [each.read_bytes() for pattern in patterns for each in folder.rglob(pattern)]


async def read_and_lose(client: Client, operator: Client) -> None:
    """Reads an answer, and deletes the token that it was asked for with once it has begun."""
    has_token = True
    async with client.generate("demo", "Once", max_tokens=1500, ignore_eos=True) as generation:
        async for _ in generation:
            if has_token:
                await operator.access.delete("brief")
                has_token = False


async def test_a_stream_ends_with_the_token_that_it_was_started_with(house: House) -> None:
    async with house.client("operator") as operator, asyncio.timeout(PATIENCE_S):
        secret = (await operator.access.create("brief", role="inference")).secret
        async with Client(house.it.address, ca=house.ca, token=secret) as client:
            with pytest.raises(Unauthenticated, match="the token of this call has ended"):
                await read_and_lose(client, operator)
        # The engine was told: nothing of the request is left there.
        async with operator.replicas.watch("demo") as events:
            async for event in events:
                load = event.changed.load
                if load.running_count == 0 and load.free_block_count == load.total_block_count:
                    return


async def test_an_agent_that_is_killed_joins_again_without_its_token_and_finds_its_engine(house: House) -> None:
    pids = engine_pids(house.it.folder)
    house.it.kill("nodeagent-a")
    house.start_agent()
    async with house.client("operator") as client, asyncio.timeout(PATIENCE_S):
        await node_ready(client)
    assert engine_pids(house.it.folder) == pids


async def test_a_control_plane_that_is_killed_knows_its_callers_and_agents_again(house: House) -> None:
    pids = engine_pids(house.it.folder)
    house.it.kill("controlplane")
    await house.it.start_control_plane("--certs", str(house.certs), "--auth")
    async with house.client("operator") as operator, house.client("inference") as client:
        await node_ready(operator)
        await operator.deployments.wait_ready("demo", timeout_s=START_S)
        assert "19" in await client.chat("demo", "What is 12 + 7?", **SAMPLING).text()
    assert engine_pids(house.it.folder) == pids


async def test_nobody_joins_with_a_token_that_was_used_or_a_certificate_of_another_authority(
    house: House, tmp_path: Path
) -> None:
    house.start_agent(house.secrets["join"], node="b")
    await eventually(lambda: "the join token was used already" in house.said("b"), "b is refused")
    house.start_agent(node="c")
    await eventually(lambda: "start the agent with a join token" in house.said("c"), "c is refused")
    for node in ("b", "c"):
        house.it.kill(f"nodeagent-{node}")
    # An agent of another cluster, which has a certificate, but not from here.
    other = Cluster(tmp_path)
    certs = made_certs(tmp_path)
    try:
        await other.start_control_plane("--certs", str(certs), "--auth")
        secret = (tmp_path / "controlplane/operator.token").read_text().strip()
        async with Client(other.address, ca=certs / "ca.pem", token=secret) as client:
            token = (await client.access.create_join_token()).secret
            other.start_agent(
                "--tls-ca", str(certs / "ca.pem"), "--join-token", token, "--simulate-gpus", "1x8GiB", node="d"
            )
            await node_ready(client)
        other.kill("nodeagent-d")
        trusting = ("--tls-ca", str(house.ca), "--simulate-gpus", "1x8GiB")
        other.start_agent(*trusting, node="d", control_plane=house.it.address)
        log = tmp_path / "nodeagent-d.log"
        await eventually(lambda: log.read_text().count("control plane does not answer") > 0, "d is refused")
    finally:
        await other.stop()
    async with house.client("operator") as client:
        assert [each.name for each in (await client.nodes.list()).nodes] == ["nodes/a"]


async def test_a_node_that_is_revoked_is_lost_and_its_engine_goes_on(house: House) -> None:
    pids = engine_pids(house.it.folder)
    async with house.client("operator") as client, asyncio.timeout(PATIENCE_S):
        await client.access.revoke_node("a")
        async with client.nodes.watch() as events:
            async for event in events:
                if event.changed.state == node_pb2.NODE_STATE_LOST:
                    break
        assert engine_pids(house.it.folder) == pids
        await eventually(lambda: "were revoked" in house.said("a"), "the agent is told")
        house.secrets["again"] = (await client.access.create_join_token(node="a")).secret
        house.it.kill("nodeagent-a")
        house.start_agent(house.secrets["again"])
        await node_ready(client)
    assert engine_pids(house.it.folder) == pids


async def test_no_token_is_in_a_log_nor_in_the_environment_of_an_engine(house: House) -> None:
    secrets = [each.encode() for each in house.secrets.values()]
    environments = environments_of(engine_pids(house.it.folder))
    logs = contents(house.it.folder, "*.log", "stdout*", "stderr*")
    assert environments
    assert len(logs) > 3
    assert [secret for secret in secrets if any(secret in each for each in (*logs, *environments))] == []
