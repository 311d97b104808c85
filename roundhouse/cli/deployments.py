"""`roundhouse list`, `scale` and `terminate`."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click

from roundhouse.cli.output import console, print_json, short_enum, state_text
from roundhouse.cli.progress import waiting_display
from roundhouse.cli.replicas import replica_table
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.units import count_of, format_age, format_seconds
from roundhouse.cli.values import int32, seconds
from roundhouse.client.names import deployment_id, enum_name
from roundhouse.kit.times import from_timestamp
from roundhouse.v1 import deployment_pb2

_BEYOND_GRACE_S = 60.0  # stopping engines takes seconds; longer means that something is wrong


@click.command("list")
@json_option
@click.pass_obj
@asynchronous
async def list_(session: Session, as_json: bool) -> None:
    """Shows the deployments."""
    async with session.client() as client:
        listing = await client.deployments.list()
    if as_json:
        print_json(listing)
        return
    out = console()
    if listing.deployments:
        out.print(deployment_table(listing.deployments, time.time()))
    else:
        out.print('no deployments: begin with "roundhouse launch --model-name demo"', style="dim")
    for node in listing.unreachable:
        out.print(f"{node} does not report: what is shown of it is old", style="yellow")


# Else -1 is taken for an option, and nobody says what is wrong with it.
@click.command(short_help="Changes how many replicas there are.", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("replica_count", metavar="N", type=int32)
@click.option("--allow-pending", is_flag=True, help="Accept replicas that do not fit now; they wait.")
@click.option("--no-wait", is_flag=True, help="Return when the new count is stored.")
@click.option("--timeout", "timeout_s", metavar="SECONDS", type=seconds, default=600.0, show_default=True)
@json_option
@click.pass_obj
@asynchronous
async def scale(
    session: Session, name: str, replica_count: int, allow_pending: bool, no_wait: bool, timeout_s: float, as_json: bool
) -> None:
    """Changes deployment NAME to N replicas, and waits until exactly those are ready."""
    start_s = time.monotonic()
    async with session.client() as client:
        deployment = await client.deployments.scale(name, replica_count, allow_pending=allow_pending)
        if not no_wait:
            with waiting_display(f"scaling {deployment_id(name)}", name, is_quiet=as_json) as show:
                ready = await client.deployments.wait_ready(name, timeout_s, show, wanted=deployment)
            deployment = ready.deployment
            if not as_json:
                console().print(replica_table(ready.replicas))
    if as_json:
        print_json(deployment)
        return
    count = count_of(deployment.replica_count, "replica")
    end = f"is wanted with {count}" if no_wait else f"has {count} after {format_seconds(time.monotonic() - start_s)}"
    console().print(f"{deployment_id(name)} {end}")


@click.command(short_help="Deletes a deployment and waits until it is gone.")
@click.argument("name")
@click.option(
    "--grace", "grace_s", metavar="SECONDS", type=seconds, default=30.0, show_default=True,
    help="How long running requests may go on.",
)  # fmt: skip
@click.option("--no-wait", is_flag=True, help="Return when the deletion has begun.")
@json_option
@click.pass_obj
@asynchronous
async def terminate(session: Session, name: str, grace_s: float, no_wait: bool, as_json: bool) -> None:
    """Deletes deployment NAME: its engines finish what they have, stop, and free their memory."""
    start_s = time.monotonic()
    async with session.client() as client:
        deployment = await client.deployments.delete(name, drain_grace_s=grace_s)
        if not no_wait:
            with waiting_display(f"terminating {deployment_id(name)}", name, is_quiet=as_json) as show:
                await client.deployments.wait_gone(name, grace_s + _BEYOND_GRACE_S, show)
    if as_json:
        print_json(deployment)
        return
    took = format_seconds(time.monotonic() - start_s)
    console().print(f"{deployment_id(name)} {'is being deleted' if no_wait else f'is gone after {took}'}")


def deployment_table(items: Iterable[deployment_pb2.Deployment], now_s: float) -> Grid:
    """Returns one line for each deployment; ages count back from `now_s`, seconds since 1970."""
    return table(
        ("DEPLOYMENT", "STATE", "READY", "MODEL", "ENGINE", "GPUS", "AGE", "NOTE"),
        [
            (
                deployment_id(each.name),
                state_text(short_enum(enum_name(deployment_pb2.DeploymentState, each.state))),
                f"{each.ready_replica_count}/{each.replica_count}",
                _model(each),
                each.engine,
                str(each.placement.gpu_count or ""),
                format_age(now_s - from_timestamp(each.create_time)) if each.HasField("create_time") else "",
                _note(each),
            )
            for each in items
        ],
        right=("READY", "GPUS", "AGE"),
        first_to_go=("ENGINE", "GPUS", "AGE"),
    )


def _model(deployment: deployment_pb2.Deployment) -> str:
    """Returns what was asked for, in one word, and of a model of the catalog what it came to."""
    model, found = deployment.model, deployment.resolved_repository
    named = " ".join(each for each in (model.family.family, model.family.size_in_billions) if each)
    return model.path or model.builtin or model.repository.id or (f"{named}, {found.id}" if found.id else named)


def _note(deployment: deployment_pb2.Deployment) -> str:
    """Returns why it is not ready: the message of the first condition that has one."""
    if deployment.state == deployment_pb2.DEPLOYMENT_STATE_READY:
        return ""
    return next((each.message for each in deployment.conditions if each.message), "")
