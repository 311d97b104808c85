"""`roundhouse cache`: the files of models that nodes keep."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click

from roundhouse.cli.output import console, print_json
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.units import format_age
from roundhouse.client.names import replica_label
from roundhouse.kit.times import from_timestamp
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import catalog_pb2

_SHORT_COMMIT = 12  # characters; the whole is in the name that --json shows


@click.group(short_help="Shows and deletes the files of models that nodes keep.")
def cache() -> None:
    """Files of models in the Hugging Face caches of the nodes."""


@cache.command("list")
@click.argument("node", default="-")
@json_option
@click.pass_obj
@asynchronous
async def list_(session: Session, node: str, as_json: bool) -> None:
    """Shows what NODE keeps, or every node."""
    async with session.client() as client:
        listing = await client.cached_models.list(node)
    if as_json:
        print_json(listing)
        return
    out = console()
    if listing.cached_models:
        out.print(cached_table(listing.cached_models, time.time()))
    else:
        out.print("no node keeps files of a model", style="dim")
    for each in listing.unreachable:
        out.print(f"{each} does not report: what is shown of it is old", style="yellow")


@cache.command(short_help="Deletes files that a node keeps.")
@click.argument("node")
@click.argument("repository")
@click.option("--revision", default="", help="Branch, tag or the beginning of a commit; needed if there are several.")
@click.pass_obj
@asynchronous
async def delete(session: Session, node: str, repository: str, revision: str) -> None:
    """Deletes what NODE keeps of REPOSITORY, unless an engine runs from it."""
    async with session.client() as client:
        listing = await client.cached_models.list(node)
        found = [each for each in listing.cached_models if _is_meant(each, repository, revision)]
        if not found:
            at = f" at {revision}" if revision else ""
            raise click.UsageError(f"{node} keeps no {repository}{at}: see roundhouse cache list {node}")
        if len(found) > 1:
            commits = ", ".join(each.repository.revision[:_SHORT_COMMIT] for each in found)
            raise click.UsageError(f"{node} keeps {repository} at {commits}: name one with --revision")
        await client.cached_models.delete(found[0].name)
    gone = found[0]
    console().print(
        f"{gone.repository.id} at {gone.repository.revision[:_SHORT_COMMIT]} is deleted from "
        f"{node.removeprefix('nodes/')}: {format_bytes(gone.size_bytes)}, less what other commits share"
    )


def cached_table(items: Iterable[catalog_pb2.CachedModel], now_s: float) -> Grid:
    """Returns one line for each repository at each commit; ages count back from `now_s`, seconds since 1970."""
    return table(
        ("NODE", "REPOSITORY", "COMMIT", "REFERENCES", "SIZE", "FILES", "USED", "REPLICAS"),
        [
            (
                each.name.split("/")[1],
                each.repository.id,
                each.repository.revision[:_SHORT_COMMIT],
                " ".join(each.references),
                format_bytes(each.size_bytes),
                str(each.file_count),
                f"{format_age(now_s - from_timestamp(each.last_used_time))} ago"
                if each.HasField("last_used_time")
                else "",
                " ".join(map(replica_label, each.replicas)),
            )
            for each in items
        ],
        right=("SIZE", "FILES", "USED"),
        first_to_go=("FILES", "USED", "REFERENCES"),
    )


def _is_meant(cached: catalog_pb2.CachedModel, repository: str, revision: str) -> bool:
    if cached.repository.id != repository:
        return False
    return not revision or revision in cached.references or cached.repository.revision.startswith(revision)
