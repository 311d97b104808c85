"""`roundhouse cancel`: ends a request by its id and shows the receipt."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from roundhouse.cli.exits import DONE, REFUSED
from roundhouse.cli.output import console, print_json, short_enum, state_text
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.units import count_of, format_seconds
from roundhouse.client.names import enum_name, replica_label
from roundhouse.kit.times import from_duration
from roundhouse.v1 import receipt_pb2

_ENDED = (receipt_pb2.CANCEL_OUTCOME_CANCELLED, receipt_pb2.CANCEL_OUTCOME_ALREADY_FINISHED)


@click.command(short_help="Ends a request by its id and shows what that freed.")
@click.argument("name")
@click.argument("request_id")
@click.option("--location", default="", help="Where it runs, if known: makes the search shorter.")
@json_option
@click.pass_obj
@asynchronous
async def cancel(session: Session, name: str, request_id: str, location: str, as_json: bool) -> int:
    """Ends request REQUEST_ID of deployment NAME and shows what that freed.

    Exit status 0 only if the request has ended: it was cancelled, or had finished before.
    """
    async with session.client() as client:
        receipt = await client.cancel(name, request_id, location)
    if as_json:
        print_json(receipt)
    else:
        console().print(receipt_table(receipt))
    return DONE if receipt.outcome in _ENDED else REFUSED


def receipt_table(receipt: receipt_pb2.CancelReceipt) -> Table:
    """Returns a receipt as one fact a line; what the receipt does not tell is left out."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("request", receipt.request_id)
    grid.add_row("outcome", _outcome(receipt))
    if receipt.cause not in (receipt_pb2.CANCEL_CAUSE_UNSPECIFIED, receipt_pb2.CANCEL_CAUSE_CLIENT):
        grid.add_row("ended by", short_enum(enum_name(receipt_pb2.CancelCause, receipt.cause)))
    if receipt.replica:
        grid.add_row("replica", replica_label(receipt.replica))
    if receipt.HasField("output_token_count"):
        grid.add_row("tokens", f"{receipt.output_token_count} of output, {receipt.prompt_token_count} of prompt")
    if receipt.level >= receipt_pb2.CANCEL_LEVEL_FREED:
        free = f"{receipt.free_block_count_before} → {receipt.free_block_count} free of {receipt.total_block_count}"
        grid.add_row("blocks freed", f"{receipt.freed_block_count} ({free})")
    if receipt.HasField("elapsed"):
        took = format_seconds(from_duration(receipt.elapsed))
        grid.add_row("took", f"{took}, {count_of(receipt.steps_after, 'step')} after the cancel")
    if receipt.unreachable:
        grid.add_row("not asked", ", ".join(receipt.unreachable))
    return grid


def _outcome(receipt: receipt_pb2.CancelReceipt) -> Text:
    outcome = state_text(short_enum(enum_name(receipt_pb2.CancelOutcome, receipt.outcome)))
    if receipt.outcome == receipt_pb2.CANCEL_OUTCOME_NOT_ARRIVED:
        return outcome.append("; it is refused if it comes within 60 s", style="dim")
    return outcome
