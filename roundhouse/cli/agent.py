"""`roundhouse agent`: lets node agents join."""

from __future__ import annotations

import time

import click

from roundhouse.cli.output import console, print_json
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.units import format_seconds
from roundhouse.cli.values import lifetime
from roundhouse.client.names import node_id
from roundhouse.kit.times import from_timestamp


@click.group(short_help="Lets node agents join.")
def agent() -> None:
    """Node agents, which join a control plane that asks for certificates with a token, once."""


@agent.command(short_help="Makes a token with which one agent may join.")
@click.option("--node", metavar="ID", default="", help="For this node; needed for one that has been there before.")
@click.option("--lifetime", "lifetime_s", metavar="TIME", type=lifetime, help="Such as 30m; default 1h.")
@json_option
@click.pass_obj
@asynchronous
async def token(session: Session, node: str, lifetime_s: float | None, as_json: bool) -> None:
    """Makes a token with which one agent may join, once. It is printed alone on a line, for a script or a file."""
    async with session.client() as client:
        made = await client.access.create_join_token(node=node, lifetime_s=lifetime_s)
    if as_json:
        print_json(made)
        return
    console().print(made.secret)
    if console().is_terminal:
        left = format_seconds(from_timestamp(made.expire_time) - time.time())
        console().print(
            f"good once, for {left}: start the agent with --tls-ca and ROUNDHOUSE_JOIN_TOKEN set to it", style="dim"
        )


@agent.command(short_help="Revokes the certificates of a node.")
@click.argument("node")
@click.pass_obj
@asynchronous
async def revoke(session: Session, node: str) -> None:
    """Revokes the certificates of NODE: its agent is not heard any more, and needs a new join token.

    Its replicas start elsewhere when its lease is over. Engines on it go on until somebody ends them there.
    """
    async with session.client() as client:
        await client.access.revoke_node(node)
    console().print(f"the certificates of {node_id(node)} are revoked")
