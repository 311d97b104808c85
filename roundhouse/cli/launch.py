"""`roundhouse launch`: creates a deployment and waits until it serves."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import click

from roundhouse.cli.arguments import PassingOn, endpoint_option
from roundhouse.cli.fitted import fitted_line
from roundhouse.cli.flags import deployment_flags, deployment_of
from roundhouse.cli.output import console, print_json
from roundhouse.cli.placing import Gpus, allowed_of, keep_to_worker
from roundhouse.cli.progress import waiting_display
from roundhouse.cli.replicas import replica_table
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.units import count_of, format_seconds
from roundhouse.cli.values import seconds
from roundhouse.cli.xinference import xinference_flags
from roundhouse.client import EngineFailed
from roundhouse.client.names import deployment_id
from roundhouse.kit.errors import DeadlineExceeded


@click.command(cls=PassingOn, short_help="Serves a model and waits until it is ready.")
@deployment_flags
@endpoint_option
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
    session: Session,
    /,
    endpoint: str | None,
    allow_pending: bool,
    no_wait: bool,
    timeout_s: float,
    as_json: bool,
    gpu_idx: list[int] | None,
    allowed_gpus: Gpus,
    worker_ip: str | None,
    **flags: Any,
) -> None:
    """Serves a model as a deployment, and waits until every replica is ready.

    NAME is what the deployment is called, if --model-name or --model-path says which model; else it is the model, too.

    \b
    roundhouse launch demo
    roundhouse launch qwen3 -s 4 -f pytorch -q none --model-engine transformers
    roundhouse launch chat --model-path /models/qwen3-8b --replica 3 --gpu-count 2

    Every flag of `xinference launch` is known too: one that cannot be had here is refused, and says what to do.
    """  # noqa: D301 - click ends the folding of lines at this very character
    wanted = deployment_of(**flags, allowed_gpus=allowed_of(gpu_idx, allowed_gpus, worker_ip))
    start_s = time.monotonic()
    async with session.at(endpoint).client() as client:
        await keep_to_worker(wanted, worker_ip, client)
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
    if deployment.memory_need.is_fitted and not as_json:
        console().print(fitted_line(deployment))
    if as_json:
        print_json(deployment)
    elif no_wait:
        console().print(f"{name} is stored, its engines start: roundhouse replicas {name} --watch")
    else:
        took, count = format_seconds(time.monotonic() - start_s), count_of(deployment.replica_count, "replica")
        console().print(f"{name} is ready with {count} after {took}: roundhouse chat {name}")
