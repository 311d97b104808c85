"""The flags of `roundhouse launch` that say where replicas may go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from roundhouse.cli.values import int32, pairs, size
from roundhouse.client import Client
from roundhouse.client.names import node_id, node_name
from roundhouse.v1.deployment_pb2 import AntiAffinity, AntiAffinityScope, Deployment
from roundhouse.v1.node_pb2 import Node

Command = TypeVar("Command", bound=Callable[..., Any])
Gpus = dict[str, list[int | str]]  # indexes and UUIDs by node

_EVERY = "-"  # stands for every node
_SCOPES: dict[str, AntiAffinityScope] = {
    "node": AntiAffinityScope.ANTI_AFFINITY_SCOPE_NODE,
    "gpu": AntiAffinityScope.ANTI_AFFINITY_SCOPE_GPU,
}


def _gang(text: str) -> int | None:
    """Reads how many GPUs a replica has; `auto` leaves it to the cluster."""
    if text.lower() == "auto":
        return None
    if text.lower() == "none":
        return 0
    if not text.isdecimal():
        raise click.BadParameter(f'"{text}" is no count: give a number, auto, or none for the processors')
    return int32(text)


def _indexes(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """Reads a list such as `0,1`."""
    if value is None:
        return None
    listed = value.split(",")
    if not all(each.isdecimal() for each in listed):
        raise click.UsageError(f'{parameter.opts[-1]} is "{value}": list indexes, as 0,1', context)
    return [int32(each) for each in listed]


def _allowed(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> Gpus:
    """Reads GPUs such as `node-1:0,1`; a node alone means all that it has, and has then nothing to be added."""
    allowed: Gpus = {}
    for each in values:
        node, colon, listed = each.partition(":")
        gpus = listed.split(",") if colon else []
        if not node or not all(gpus):
            raise click.UsageError(f'{parameter.opts[-1]} is "{each}": write NODE or NODE:0,1', context)
        node = _EVERY if node == "*" else node
        if node in allowed and not (gpus and allowed[node]):
            gpus, allowed[node] = [], []
        allowed.setdefault(node, []).extend(int32(gpu) if gpu.isdecimal() else gpu for gpu in gpus)
    return allowed


def _tolerated(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str | None]:
    """Reads taints such as `spot` or `team=search`."""
    tolerated: dict[str, str | None] = {}
    for each in values:
        key, equals, text = each.partition("=")
        if not key:
            raise click.UsageError(f'{parameter.opts[-1]} is "{each}": write KEY or KEY=VALUE', context)
        tolerated[key] = text if equals else None
    return tolerated


def _apart(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[AntiAffinity]:
    """Reads what to keep away from, such as `node` or `gpu:team=search,tier=1`."""
    rules = []
    for each in values:
        scope, colon, labels = each.partition(":")
        if scope.lower() not in _SCOPES or (colon and not labels):
            raise click.UsageError(f'{parameter.opts[-1]} is "{each}": write node, gpu, or gpu:LABEL=VALUE', context)
        others = pairs(context, parameter, labels.split(",") if colon else [])
        rules.append(AntiAffinity(scope=_SCOPES[scope.lower()], deployment_labels=others))
    return rules


_WHERE = (
    click.option("--gpu-count", metavar="N", type=int32, help="How many distinct GPUs all replicas together use."),
    click.option(
        "--gpus-per-replica", "--n-gpu", metavar="N", type=_gang,
        help="GPUs of one replica, on one node: a number, auto, or none for the processors.",
    ),
    click.option("--gpu-idx", metavar="0,1", callback=_indexes, help="The only GPUs of every node, by index."),
    click.option(
        "--allow-gpu", "allowed_gpus", metavar="NODE[:0,1]", multiple=True, callback=_allowed,
        help="The only GPUs, by index or UUID; NODE * is every one; repeatable.",
    ),
    click.option("--worker-ip", metavar="HOST", help="The only node, by id, name of its host, or address."),
    click.option(
        "--node-label", "node_labels", metavar="KEY=VALUE", multiple=True, callback=pairs,
        help="A label that a node must have; repeatable.",
    ),
    click.option(
        "--tolerate", "tolerations", metavar="KEY[=VALUE]", multiple=True, callback=_tolerated,
        help="A taint of nodes that keeps nothing off; * is any; repeatable.",
    ),
    click.option(
        "--apart", "anti_affinity", metavar="node|gpu[:LABEL=VALUE,…]", multiple=True, callback=_apart,
        help="Not beside one another, or beside deployments with these labels; repeatable.",
    ),
    click.option(
        "--allow-shared-gpu/--no-allow-shared-gpu", default=None,
        help="Whether others may be on its GPUs; the cluster's choice if absent.",
    ),
    click.option(
        "--memory", "memory_bytes", metavar="SIZE", callback=size, help="What a replica needs, as 5GiB; else computed."
    ),
    click.option("--memory-fraction", metavar="X", type=float, help="The same as a share of a GPU, up to 1."),
    click.option("--strategy", default="", help="How GPUs are ranked; the cluster's choice if absent."),
)  # fmt: skip


def placement_flags(command: Command) -> Command:
    """Gives a command the flags; `allowed_of` makes one thing of those that say which GPUs."""
    for decorate in reversed(_WHERE):
        command = decorate(command)
    return command


def allowed_of(gpu_idx: Sequence[int] | None, allowed: Gpus, worker: str | None) -> Gpus:
    """Returns which GPUs may be taken. `worker` is a node, if there is only one.

    Raises click.UsageError if that is said twice.
    """
    if worker is not None and allowed:
        raise click.UsageError("--worker-ip and --allow-gpu both say which nodes: give one")
    if gpu_idx is not None and allowed:
        raise click.UsageError("--gpu-idx and --allow-gpu both say which GPUs: give one")
    if gpu_idx is not None or worker is not None:
        return {worker or _EVERY: list(gpu_idx or ())}
    return allowed


async def keep_to_worker(wanted: Deployment, host: str | None, client: Client) -> None:
    """Puts the node that `--worker-ip` means in the place that `allowed_of` has kept for it."""
    if host is not None:
        wanted.placement.allowed_gpus[0].node = node_name(await node_at(host, (await client.nodes.list()).nodes))


async def node_at(host: str, nodes: Sequence[Node]) -> str:
    """Returns the id of the node with this id, name of its host, or address; raises click.UsageError if none is it.

    Addresses are those that names of hosts have for whoever asks. A port, as in Xinference, says nothing here.
    """
    host = host.partition(":")[0]
    found = [each for each in nodes if host in (node_id(each.name), each.hostname)]
    if not found:
        found = [each for each in nodes if host in await _addresses(each.hostname)]
    if len(found) != 1:
        known = ", ".join(node_id(each.name) for each in found or nodes) or "none"
        raise click.UsageError(f"--worker-ip {host} is {len(found)} nodes: give the id of one, of {known}")
    return node_id(found[0].name)


async def _addresses(hostname: str) -> set[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(address[0]) for *_, address in found}
