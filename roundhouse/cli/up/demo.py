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
from roundhouse.v1 import deployment_pb2

DEMO = "demo"
_REPLICA_COUNT = 3
_GPU_COUNT = 2
_GONE_WITHIN_S = 120.0
_READY_WITHIN_S = 600.0


async def launch_demo(story: Story, client: Client, replica_count: int | None, gpu_count: int | None) -> None:
    """Waits until the demo is ready and shows its replicas. One that is there already is taken as it is.

    None is the default of a new one, and nothing that one that is there could differ from.
    """
    there = await _lasting(story, client)
    if there is None:
        wanted = replica_count or _REPLICA_COUNT
        gpus = gpu_count or await _default_gpu_count(client, wanted)
        await client.deployments.create(deployment(DEMO, builtin="demo", replica_count=wanted, gpu_count=gpus))
    elif replica_count not in (None, there.replica_count):
        story.warn(
            f"{DEMO} is there already with {count_of(there.replica_count, 'replica')}, not {replica_count}, and is "
            f"kept as it is: roundhouse scale {DEMO} {replica_count}"
        )
    with waiting_display(f"launching {DEMO}", DEMO, is_quiet=story.as_json) as show:
        ready = await client.deployments.wait_ready(DEMO, _READY_WITHIN_S, show)
    count = count_of(ready.deployment.replica_count, "replica")
    shown = [to_dict(each) for each in ready.replicas]
    story.step("deployment", DEMO, f"{count} ready", deployment=ready.deployment.name, replicas=shown)
    if ready.replicas:
        story.tell("placement", Padding(replica_table(ready.replicas), (1, 2)))


async def _lasting(story: Story, client: Client) -> deployment_pb2.Deployment | None:
    """Returns the demo if there is one, once it is sure that it is not going away."""
    try:
        there = await client.deployments.get(DEMO)
    except NotFound:
        return None
    if not there.HasField("delete_time"):
        return there
    story.warn(f"{DEMO} is being deleted: it is launched anew once it is gone")
    with waiting_display(f"terminating {DEMO}", DEMO, is_quiet=story.as_json) as show:
        await client.deployments.wait_gone(DEMO, _GONE_WITHIN_S, show)
    return None


async def _default_gpu_count(client: Client, replica_count: int) -> int | None:
    """Returns two, or fewer where there are fewer; None on a machine without GPUs."""
    nodes = (await client.nodes.list()).nodes
    return min(_GPU_COUNT, replica_count, sum(len(node.gpus) for node in nodes)) or None
