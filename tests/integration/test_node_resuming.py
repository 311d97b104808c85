"""The recipe for other languages, in Node.js: a stream that is cut, and one that is left."""

from __future__ import annotations

import asyncio
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted_cluster import scripted_cluster
from tests.support.tcp_proxy import TcpProxy

ROOT = Path(__file__).parents[2]
NODE = ROOT / "tests/node"


async def client(address: str, step: str) -> dict[str, Any]:
    """Returns what a step of the client tells."""
    command = ["node", "client.mjs", address, str(ROOT / "protos"), "demo", step]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=NODE, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told: dict[str, Any] = json.loads(out)
    return told


@pytest.mark.node
@pytest.mark.parametrize("seed", range(4))
async def test_a_node_js_client_sees_one_whole_stream_wherever_it_is_cut(seed: int) -> None:
    draw = random.Random(seed)
    async with scripted_cluster() as (serving, _, inference), TcpProxy(serving.address).serving() as proxy:
        proxy.limits.extend(draw.randint(60, 1200) for _ in range(3))
        seen = await client(proxy.address, "survive")
    assert len(inference.requests) + len(inference.attached) == 4
    assert seen["kinds"] == ["started", "finished", "finished", "usage"]
    assert seen["positions"] == {"0": list(range(41)), "1": list(range(41))}
    words = " ".join([*(f"word{number}" for number in range(40)), "unheard-of"])
    assert (seen["texts"]["0"], seen["prompt"]) == (words, f"{words} ")


@pytest.mark.node
async def test_a_node_js_client_leaves_a_stream_and_ends_it_by_its_id() -> None:
    async with scripted_cluster() as (serving, _, inference):
        seen = await client(serving.address, "leave")
        assert await inference.left.get() == "node-leaves"
    assert (seen["state"], seen["outcome"]) == ("REQUEST_STATE_RUNNING", "CANCEL_OUTCOME_CANCELLED")


def test_the_recipe_of_the_documentation_is_the_one_that_is_tested() -> None:
    [written] = re.findall(r"```js\n(.*?)```", (ROOT / "docs/resuming.md").read_text(), re.DOTALL)
    assert written in (NODE / "surviving.mjs").read_text()
