"""`roundhouse launch`: creates a deployment and waits until it serves."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import click

from roundhouse.cli.flags import deployment_flags, deployment_of
from roundhouse.cli.output import console, print_json
from roundhouse.cli.progress import waiting_display
from roundhouse.cli.replicas import replica_table
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.units import count_of, format_seconds
from roundhouse.cli.values import seconds
from roundhouse.cli.xinference import xinference_flags
from roundhouse.client import EngineFailed
from roundhouse.client.names import deployment_id
from roundhouse.kit.errors import DeadlineExceeded


@click.command(short_help="Serves a model and waits until it is ready.")
@deployment_flags
@xinference_flags
@click.option("--allow-pending", is_flag=True, help="Accept it even if it does not fit now; it waits.")
@click.option("--no-wait", is_flag=True, help="Return when it is stored.")
@click.option(
    "--timeout", "timeout_s", metavar="SECONDS", type=seconds, default=600.0, help="How long to wait; default 600."
)
@json_option
@click.pass_obj
@asynchronous
async def launch(
    session: Session, /, allow_pending: bool, no_wait: bool, timeout_s: float, as_json: bool, **flags: Any
) -> None:
    """Serves a model as deployment NAME, and waits until every replica is ready.

    \b
    roundhouse launch --model-name demo
    roundhouse launch chat --model-path /models/qwen3-8b --replica 3 --gpu-count 2

    Every flag of `xinference launch` is known too: one that cannot be had here is refused, and says what to do.
    """  # noqa: D301 - click ends the folding of lines at this very character
    wanted = deployment_of(**flags)
    start_s = time.monotonic()
    async with session.client() as client:
        deployment = await client.deployments.create(wanted, allow_pending=allow_pending)
        name = deployment_id(deployment.name)
        if not no_wait:
            try:
                with waiting_display(f"launching {name}", name, is_quiet=as_json) as show:
                    ready = await client.deployments.wait_ready(name, timeout_s, show, wanted=deployment)
            except (EngineFailed, DeadlineExceeded) as error:
                error.add_note(f"it stays: `roundhouse terminate {name}` ends it")
                raise
            except asyncio.CancelledError:
                print(f"no longer waiting; {name} goes on: roundhouse replicas {name}", file=sys.stderr)
                raise
            deployment = ready.deployment
            if not as_json:
                console().print(replica_table(ready.replicas))
    if as_json:
        print_json(deployment)
    elif no_wait:
        console().print(f"{name} is stored, its engines start: roundhouse replicas {name} --watch")
    else:
        took, count = format_seconds(time.monotonic() - start_s), count_of(deployment.replica_count, "replica")
        console().print(f"{name} is ready with {count} after {took}: roundhouse chat {name}")
