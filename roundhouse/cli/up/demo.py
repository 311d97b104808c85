"""The demo deployment: launched, or found again, and shown where it went."""

from __future__ import annotations

from rich.padding import Padding

from roundhouse.cli.output import to_dict
from roundhouse.cli.progress import waiting_display
from roundhouse.cli.replicas import replica_table
from roundhouse.cli.units import count_of
from roundhouse.cli.up.story import Story
from roundhouse.client import Client, deployment
from roundhouse.kit.errors import NotFound

DEMO = "demo"
_GPU_COUNT = 2
_READY_WITHIN_S = 600.0


async def launch_demo(story: Story, client: Client, replica_count: int, gpu_count: int | None) -> None:
    """Waits until the demo is ready and shows its replicas. One that is there already is taken as it is."""
    try:
        await client.deployments.get(DEMO)
    except NotFound:
        gpus = gpu_count or await _default_gpu_count(client, replica_count)
        await client.deployments.create(deployment(DEMO, builtin="demo", replica_count=replica_count, gpu_count=gpus))
    with waiting_display(f"launching {DEMO}", DEMO, is_quiet=story.as_json) as show:
        ready = await client.deployments.wait_ready(DEMO, _READY_WITHIN_S, show)
    count = count_of(ready.deployment.replica_count, "replica")
    shown = [to_dict(each) for each in ready.replicas]
    story.step("deployment", DEMO, f"{count} ready", deployment=ready.deployment.name, replicas=shown)
    if ready.replicas:
        story.tell("placement", Padding(replica_table(ready.replicas), (1, 2)))


async def _default_gpu_count(client: Client, replica_count: int) -> int | None:
    """Returns two, or fewer where there are fewer; None on a machine without GPUs."""
    nodes = (await client.nodes.list()).nodes
    return min(_GPU_COUNT, replica_count, sum(len(node.gpus) for node in nodes)) or None
