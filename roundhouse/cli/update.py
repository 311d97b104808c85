"""`roundhouse update`: changes what is wanted of a deployment and waits until its replicas are replaced."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from roundhouse.cli.environments import virtual_env_of
from roundhouse.cli.flags import changing_flags, fitting_of
from roundhouse.cli.naming import Named
from roundhouse.cli.output import console, print_json
from roundhouse.cli.progress import waiting_display
from roundhouse.cli.replicas import replica_table
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.units import count_of, format_seconds
from roundhouse.cli.values import int32, pairs, seconds
from roundhouse.client import deployment
from roundhouse.client.names import deployment_id
from roundhouse.kit.times import to_duration
from roundhouse.options.engine_options import OPPOSITES
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import Deployment, EnvVar


@click.command(short_help="Changes what the replicas of a deployment run, one after the other.")
@click.argument("name")
@changing_flags
@click.option("--unset-env", metavar="NAME", multiple=True, help="A variable that engines have no more; repeatable.")
@click.option("-r", "--replica", "replica_count", metavar="N", type=int32, help="How many replicas.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", callback=pairs, help="A label; repeatable.")
@click.option("--max-surge", metavar="N", type=int32, help="Replicas beside those wanted meanwhile; default 1.")
@click.option("--max-unavailable", metavar="N", type=int32, help="Replicas that may be missing meanwhile; default 0.")
@click.option(
    "--drain-grace",
    "drain_grace_s",
    metavar="SECONDS",
    type=seconds,
    help="How long requests of a replica that was replaced may go on; default 300.",
)
@click.option(
    "--progress-deadline",
    "progress_deadline_s",
    metavar="SECONDS",
    type=seconds,
    help="After how long without a new replica the change is taken back; default 600.",
)
@click.option("--allow-pending", is_flag=True, help="Accept it even if it does not fit now.")
@click.option("--no-wait", is_flag=True, help="Return when the change is stored.")
@click.option("--timeout", "timeout_s", metavar="SECONDS", type=seconds, default=1800.0, show_default=True)
@json_option
@click.pass_obj
@asynchronous
async def update(
    session: Session,
    /,
    name: str,
    allow_pending: bool,
    no_wait: bool,
    timeout_s: float,
    as_json: bool,
    **flags: Any,
) -> None:
    """Changes deployment NAME, and waits until every replica runs what is wanted.

    Replicas are replaced one after the other, and requests that run finish where they are. If new replicas do not work,
    the change is taken back, and this command says why.

    \b
    roundhouse update chat --env ROUNDHOUSE_BATCH_SIZE 8
    roundhouse update chat --model-path /models/qwen3-8b-tuned --max-unavailable 1
    """  # noqa: D301 - click ends the folding of lines at this very character
    start_s = time.monotonic()
    async with session.client() as client:
        change, paths = changed(await client.deployments.get(name), **flags)
        if not paths:
            raise click.UsageError("nothing to change: say what, as in --batch-size 8")
        stored = await client.deployments.update(change, paths, allow_pending=allow_pending)
        if not no_wait:
            with waiting_display(f"updating {deployment_id(name)}", name, is_quiet=as_json) as show:
                ready = await client.deployments.wait_ready(name, timeout_s, show, wanted=stored)
            stored = ready.deployment
            if not as_json:
                console().print(replica_table(ready.replicas))
    if as_json:
        print_json(stored)
    elif no_wait:
        console().print(f"{deployment_id(name)} is wanted otherwise: roundhouse replicas {deployment_id(name)} --watch")
    else:
        took, count = format_seconds(time.monotonic() - start_s), count_of(stored.replica_count, "replica")
        console().print(f"{deployment_id(name)} is up to date with {count} after {took}")


def changed(
    present: Deployment,
    *,
    replica_count: int | None,
    labels: Mapping[str, str],
    env: Sequence[tuple[str, str]],
    secret_env: Mapping[str, str],
    unset_env: Sequence[str],
    max_surge: int | None,
    max_unavailable: int | None,
    drain_grace_s: float | None,
    progress_deadline_s: float | None,
    model_name: str | None,
    model_path: Path | None,
    size_in_billions: str | None,
    model_format: str | None,
    quantization: str | None,
    engine_quantization: str | None,
    draft_model: Path | None,
    max_model_len: Any,
    kv_cache_memory: Any,
    has_virtual_env: bool | None,
    packages: Sequence[str],
    constraints: Sequence[str],
    index_url: str | None,
    find_links: Sequence[str],
    inherit: bool | None,
    **settings: Any,
) -> tuple[Deployment, list[str]]:
    """Returns the change that flags ask for of a deployment as it is, and the paths of what changes."""
    named = Named(None, None, model_name, model_path, size_in_billions, model_format, quantization)
    has_model = model_name is not None or model_path is not None
    if not has_model and (size_in_billions or model_format or quantization):
        raise click.UsageError("-s, -f and -q say which files of a model: name it, with -n or -mp")
    environment = virtual_env_of(
        has_virtual_env=has_virtual_env,
        packages=packages,
        constraints=constraints,
        index_url=index_url,
        find_links=find_links,
        inherit=inherit,
    )
    change = deployment(
        deployment_id(present.name),
        **(named.source() if has_model else {"builtin": "demo"}),  # it must have one; it is taken only if it is named
        replica_count=replica_count,
        virtual_env=environment,
        quantization=engine_quantization or (named.engine_quantization() if has_model else None),
        **fitting_of(draft_model, max_model_len, kv_cache_memory),
        **settings,
    )
    change.etag = present.etag
    paths = _option_paths(change)
    paths += ["model"] if has_model else []
    paths += ["replica_count"] if replica_count is not None else []
    paths += ["routing_policy"] if change.routing_policy else []
    paths += ["virtual_env"] if environment is not None or has_virtual_env is False else []
    if labels:
        change.labels.update({**present.labels, **labels})
        paths.append("labels")
    if env or secret_env or unset_env:
        change.env.extend(_env(present, dict(env), secret_env, unset_env))
        paths.append("env")
    rollout = deployment_pb2.RolloutPolicy(
        max_surge=max_surge,
        max_unavailable=max_unavailable,
        drain_grace=None if drain_grace_s is None else to_duration(drain_grace_s),
        progress_deadline=None if progress_deadline_s is None else to_duration(progress_deadline_s),
    )
    change.rollout.CopyFrom(rollout)
    paths += [f"rollout.{field.name}" for field, _ in rollout.ListFields()]
    return change, paths


def _option_paths(change: Deployment) -> list[str]:
    """Returns the settings that change. What is fitted and what is given exclude one another: one clears the other."""
    names = [field.name for field, _ in change.engine_options.ListFields() if field.name != "speculation"]
    cleared = [OPPOSITES[name] for name in names if name in OPPOSITES]
    guessing = [f"speculation.{field.name}" for field, _ in change.engine_options.speculation.ListFields()]
    return [f"engine_options.{name}" for name in (*names, *cleared, *guessing)]


def _env(
    present: Deployment, env: Mapping[str, str], secret_env: Mapping[str, str], unset_env: Sequence[str]
) -> list[EnvVar]:
    """Returns all variables as they are to be; a secret without a value is kept."""
    known = {each.name for each in present.env}
    unknown = next((each for each in unset_env if each not in known), None)
    if unknown is not None:
        raise click.UsageError(f"--unset-env {unknown}: the deployment has no such variable: leave it out")
    new = {*env, *secret_env, *unset_env}
    kept = [
        EnvVar(name=each.name, value=each.value if each.HasField("value") else None)
        for each in present.env
        if each.name not in new
    ]
    clear = [EnvVar(name=name, value=value) for name, value in env.items()]
    return [*kept, *clear, *(EnvVar(name=name, secret_value=value) for name, value in secret_env.items())]
