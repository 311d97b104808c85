"""`roundhouse plan`: says where replicas would go, and why nowhere else, without doing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.text import Text

from roundhouse.cli.arguments import PassingOn, endpoint_option
from roundhouse.cli.exits import DONE, REFUSED
from roundhouse.cli.flags import deployment_flags, deployment_of
from roundhouse.cli.output import console, print_json
from roundhouse.cli.placing import Gpus, allowed_of, keep_to_worker
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.values import int32, size
from roundhouse.cli.xinference import xinference_flags
from roundhouse.client.names import node_id, node_name
from roundhouse.kit.units import format_bytes, format_sum
from roundhouse.v1 import deployment_service_pb2 as pb

_WORDS = {
    pb.DEVICE_VERDICT_KIND_PLACED: ("placed", "green"),
    pb.DEVICE_VERDICT_KIND_PASSED: ("passed", "dim"),
}
_REFUSED = ("refused", "red")


def _imagined(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[pb.ImaginedGpus]:
    """Reads GPUs such as `new-1:8` or `new-1:8x80GiB`."""
    return [_entry(context, parameter, each) for each in values]


def _entry(context: click.Context, parameter: click.Parameter, text: str) -> pb.ImaginedGpus:
    node, colon, rest = text.partition(":")
    count, times, each = rest.partition("x")
    if not (node and colon and count.isdecimal()) or (times and not each):
        raise click.UsageError(f'{parameter.opts[-1]} is "{text}": write NODE:COUNT or NODE:COUNTxSIZE', context)
    memory_bytes = size(context, parameter, each) if times else None
    return pb.ImaginedGpus(node=node_name(node), gpu_count=int32(count), memory_bytes=memory_bytes or 0)


@click.command(cls=PassingOn, short_help="Says where replicas would go, and why nowhere else.")
@deployment_flags
@endpoint_option
@xinference_flags
@click.option("--existing", metavar="DEPLOYMENT", help="Plan one that exists, with the --replica that is given here.")
@click.option(
    "--add-gpus", "imagined", metavar="NODE:COUNT[xSIZE]", multiple=True, callback=_imagined,
    help="Imagine GPUs, on a node that is there or not; of the size of the largest if none is said; repeatable.",
)  # fmt: skip
@json_option
@click.pass_context
@asynchronous
async def plan(
    context: click.Context,
    /,
    endpoint: str | None,
    existing: str | None,
    imagined: list[pb.ImaginedGpus],
    as_json: bool,
    gpu_idx: list[int] | None,
    allowed_gpus: Gpus,
    worker_ip: str | None,
    **flags: Any,
) -> int:
    """Says where the replicas of a deployment would go, without creating it: every GPU with its reason or its score.

    Takes the flags of `roundhouse launch`. What it says is what the control plane does on the same facts. Exit
    status: 0 if all fits, 1 if not.

    \b
    roundhouse plan chat --model-path /models/qwen3-8b --replica 3 --gpu-count 2
    roundhouse plan --existing chat --replica 5
    roundhouse plan --existing chat --replica 5 --add-gpus node-9:8x80GiB
    """  # noqa: D301 - click ends the folding of lines at this very character
    session: Session = context.obj
    async with session.at(endpoint).client() as client:
        if existing is not None:
            count = flags["replica_count"] if _is_given(context, "replica_count") else None
            found = await client.deployments.plan(existing, replica_count=count, imagined_gpus=imagined)
        else:
            wanted = deployment_of(**flags, allowed_gpus=allowed_of(gpu_idx, allowed_gpus, worker_ip))
            await keep_to_worker(wanted, worker_ip, client)
            found = await client.deployments.plan(wanted, imagined_gpus=imagined)
    if as_json:
        print_json(found)
    else:
        _show(found)
    return DONE if found.fits else REFUSED


def _is_given(context: click.Context, parameter: str) -> bool:
    return context.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


def _show(found: pb.PlanDeploymentResponse) -> None:
    out = console()
    out.print(verdict_table(found))
    if found.omitted_node_count:
        out.print(f"{found.omitted_node_count} nodes more", style="dim")
    out.print()
    out.print(f"each replica needs {_arithmetic(found)}")
    for each in found.replicas:
        where = f"{node_id(each.node)}{_gpus(each)}" if each.node else each.message
        standing = " (stands)" if each.is_standing else ""
        out.print(f"  {each.index}  {where}{standing}", style="" if each.node else "red")
    for name in found.displaced_replicas:
        out.print(f"{name} waits, and would have no place after this", style="red")


def verdict_table(found: pb.PlanDeploymentResponse) -> Grid:
    """Returns one line for each device."""
    return table(
        ("NODE", "GPU", "VERDICT", "TOTAL", "OTHERS", "HELD", "AVAILABLE", "WHY"),
        list(_rows(found)),
        right=("GPU", "TOTAL", "OTHERS", "HELD", "AVAILABLE"),
        first_to_go=("TOTAL", "OTHERS", "HELD"),
    )


def _rows(found: pb.PlanDeploymentResponse) -> Iterator[Sequence[str | Text]]:
    for node in found.nodes:
        for device in node.devices:
            word, style = _WORDS.get(device.kind, _REFUSED)
            count = f" {device.placed_count}" if device.placed_count else ""
            score = ", ".join(f"{term.name} {term.value:.4g}" for term in device.score)
            yield (
                f"{node_id(node.node)}{' (imagined)' if node.is_imagined else ''}",
                str(device.gpu_index) if device.gpu_uuid else "host",
                Text(f"{word}{count}", style=style),
                format_bytes(device.total_memory_bytes),
                format_bytes(device.foreign_memory_bytes),
                format_bytes(device.held_memory_bytes),
                format_bytes(device.available_memory_bytes),
                "; ".join(each for each in (device.message, score) if each),
            )


def _arithmetic(found: pb.PlanDeploymentResponse) -> str:
    need = found.memory_need
    parts = {"weights": need.weight_bytes, "KV cache": need.kv_cache_bytes, "overhead": need.overhead_bytes}
    return format_sum(need.total_bytes, {} if need.is_stated or not need.weight_bytes else parts)


def _gpus(replica: pb.PlannedReplica) -> str:
    return f", GPU {', '.join(str(each.index) for each in replica.gpus)}" if replica.gpus else ""
