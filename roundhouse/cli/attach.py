"""`roundhouse attach`: follows a request that runs, or shows one that ended lately."""

from __future__ import annotations

from collections.abc import Sequence

import click

from roundhouse.cli.answers import show_answer
from roundhouse.cli.session import Session, asynchronous, json_option

_MOST_DIGITS = 9  # all such numbers fit into the contract's, and no context nor number of choices needs more


def _positions(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[int, int]:
    """Reads counts such as `132`, or `1=132` for another choice than the first, as the callback of a flag."""
    after = {}
    for each in values:
        choice, equals, count = each.rpartition("=")
        if not (count.isdecimal() and (choice.isdecimal() if equals else True)):
            raise click.UsageError(f'{parameter.opts[-1]} is "{each}": write N, or CHOICE=N', context)
        if max(len(choice), len(count)) > _MOST_DIGITS:
            raise click.UsageError(f'{parameter.opts[-1]} is "{each[:100]}": no request is that long', context)
        after[int(choice or 0)] = int(count)
    return after


@click.command(short_help="Follows a request that runs.")
@click.argument("name")
@click.argument("request_id")
@click.option(
    "--after",
    multiple=True,
    metavar="[CHOICE=]N",
    callback=_positions,
    help="Leave out the first N tokens, of choice 0 if none is named; repeatable.",
)
@click.option("--location", default="", help="Where it runs, if known: makes the search shorter.")
@json_option
@click.pass_obj
@asynchronous
async def attach(
    session: Session, name: str, request_id: str, after: dict[int, int], location: str, as_json: bool
) -> None:
    """Follows request REQUEST_ID of deployment NAME to its end, beside whoever else does, or shows one that has ended.

    Ctrl-C leaves it: `roundhouse cancel` ends it.
    """
    async with session.client() as client:
        await show_answer(client.attach(name, request_id, location, after=after), as_json=as_json)
