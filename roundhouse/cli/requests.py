"""`roundhouse requests`: the requests of a deployment that run or ended lately."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click
from rich.console import Group
from rich.table import Table

from roundhouse.cli.cancel import receipt_table
from roundhouse.cli.output import console, print_json, short_enum, state_text
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.units import count_of, format_age
from roundhouse.client.names import enum_name, replica_label
from roundhouse.kit.times import from_duration, from_timestamp
from roundhouse.v1 import generation_pb2, request_pb2

DETACH_TTL_S = 60.0  # by the contract, of who detaches and does not say for how long


@click.command(short_help="Shows the requests of a deployment, or one of them.")
@click.argument("name")
@click.argument("request_id", required=False)
@json_option
@click.pass_obj
@asynchronous
async def requests(session: Session, name: str, request_id: str | None, as_json: bool) -> None:
    """Shows your requests at deployment NAME that run or ended lately, newest first; with REQUEST_ID, that one whole.

    What is shown of one that has ended includes its receipt: what it held, and that this is free.
    """
    async with session.client() as client:
        if request_id is not None:
            found = await client.request(name, request_id)
            if as_json:
                print_json(found)
            else:
                console().print(request_facts(found, time.time()))
            return
        listing = await client.requests(name)
    if as_json:
        print_json(listing)
    elif listing.requests:
        console().print(request_table(listing.requests, time.time()))
    else:
        console().print("no request runs or has ended lately", style="dim")
    if listing.unreachable and not as_json:
        console().print(f"not asked: {', '.join(listing.unreachable)}", style="yellow")


def request_table(items: Iterable[request_pb2.InferenceRequest], now_s: float) -> Grid:
    """Returns one line for each request; ages count back from `now_s`, seconds since 1970."""
    return table(
        ("REQUEST", "STATE", "REPLICA", "ATTEMPT", "TOKENS", "AGE", "FOLLOWERS"),
        [
            (
                each.request_id,
                state_text(_state(each)),
                replica_label(each.replica),
                str(each.attempt),
                str(_tokens(each)),
                format_age(now_s - from_timestamp(each.arrival_time)) if each.HasField("arrival_time") else "",
                str(each.follower_count),
            )
            for each in items
        ],
        right=("ATTEMPT", "TOKENS", "AGE"),
        first_to_go=("ATTEMPT", "AGE"),
    )


def request_facts(request: request_pb2.InferenceRequest, now_s: float) -> Group:
    """Returns one request as a fact a line, and its receipt below; what is not known of it is left out."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("request", request.request_id)
    grid.add_row("state", state_text(_state(request)))
    if request.replica:
        attempt = f", attempt {request.attempt}" if request.attempt > 1 else ""
        grid.add_row("replica", f"{replica_label(request.replica)}{attempt}")
    if request.HasField("prompt_token_count"):
        grid.add_row("tokens", f"{_tokens(request)} of output, {request.prompt_token_count} of prompt")
    if request.HasField("arrival_time"):
        grid.add_row("came", f"{format_age(now_s - from_timestamp(request.arrival_time))} ago")
    if request.priority:
        grid.add_row("priority", str(request.priority))
    if request.labels:
        grid.add_row("labels", ", ".join(f"{key}={value}" for key, value in sorted(request.labels.items())))
    grid.add_row("followers", str(request.follower_count))
    if request.on_disconnect.policy == generation_pb2.DISCONNECT_POLICY_DETACH:
        given = request.on_disconnect
        ttl_s = from_duration(given.ttl) if given.HasField("ttl") else DETACH_TTL_S
        grid.add_row("without any", f"goes on for {format_age(ttl_s)}")
    for each in request.finishes:
        grid.add_row(f"choice {each.choice}", _ending(each))
    if not request.HasField("receipt"):
        return Group(grid)
    return Group(grid, "", receipt_table(request.receipt))


def _ending(finished: generation_pb2.Finished) -> str:
    reason = short_enum(enum_name(generation_pb2.FinishReason, finished.reason))
    exactness = short_enum(enum_name(generation_pb2.Exactness, finished.exactness))
    return f"{reason} after {count_of(finished.output_token_count, 'token')}, {exactness}"


def _state(request: request_pb2.InferenceRequest) -> str:
    return short_enum(enum_name(request_pb2.RequestState, request.state))


def _tokens(request: request_pb2.InferenceRequest) -> int:
    return sum(each.output_token_count for each in request.positions)
