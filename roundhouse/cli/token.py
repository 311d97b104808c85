"""`roundhouse token`: gives and takes the tokens of people and programs."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click

from roundhouse.cli.output import console, print_json
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.units import format_age
from roundhouse.cli.values import lifetime
from roundhouse.client.names import access_token_id, enum_name
from roundhouse.kit.times import from_timestamp
from roundhouse.v1 import access_pb2

ROLES = ("viewer", "inference", "operator")


@click.group(short_help="Gives and takes the tokens of people and programs.")
def token() -> None:
    """Tokens that callers present; each has a role, and each role includes those before it.

    viewer sees, inference sends requests, operator does everything.
    """


@token.command(short_help="Makes a token and prints its secret, once.")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it allows.")
@click.option("--tenant", metavar="ID", default="", help="On whose account its requests are; engines are fair to each.")
@click.option("--lifetime", "lifetime_s", metavar="TIME", type=lifetime, help="As 12h or 90d; default: without end.")
@json_option
@click.pass_obj
@asynchronous
async def create(session: Session, name: str, role: str, tenant: str, lifetime_s: float | None, as_json: bool) -> None:
    """Makes a token NAME and prints its secret, alone on a line. It cannot be shown again."""
    async with session.client() as client:
        made = await client.access.create(name, role=role, tenant=tenant, lifetime_s=lifetime_s)
    if as_json:
        print_json(made)
    else:
        console().print(made.secret)


@token.command("list")
@json_option
@click.pass_obj
@asynchronous
async def list_(session: Session, as_json: bool) -> None:
    """Shows the tokens, without their secrets."""
    async with session.client() as client:
        listing = await client.access.list()
    if as_json:
        print_json(listing)
    else:
        console().print(token_table(listing.access_tokens, time.time()))


@token.command()
@click.argument("name")
@click.pass_obj
@asynchronous
async def delete(session: Session, name: str) -> None:
    """Takes token NAME away; calls that run with it are ended."""
    async with session.client() as client:
        await client.access.delete(name)
    console().print(f"{access_token_id(name)} is deleted")


@token.command(short_help="Says who the control plane takes you for.")
@json_option
@click.pass_obj
@asynchronous
async def whoami(session: Session, as_json: bool) -> None:
    """Says who the control plane takes you for, and what you may do."""
    async with session.client() as client:
        who = await client.access.caller()
    if as_json:
        print_json(who)
    else:
        tenant = f", tenant {who.tenant}" if who.tenant else ""
        console().print(f"{who.principal}: {role_name(who.role)}{tenant}")


def token_table(tokens: Iterable[access_pb2.AccessToken], now_s: float) -> Grid:
    """Returns one line for each token."""
    return table(
        ("TOKEN", "ROLE", "TENANT", "AGE", "ENDS"),
        [
            (
                access_token_id(each.name),
                role_name(each.role),
                each.tenant,
                format_age(now_s - from_timestamp(each.create_time)),
                _end(each, now_s),
            )
            for each in tokens
        ],
        right=("AGE",),
        first_to_go=("AGE", "TENANT"),
    )


def role_name(role: int) -> str:
    """Returns a role as people say it."""
    return enum_name(access_pb2.AccessRole, role).removeprefix("ACCESS_ROLE_").lower()


def _end(token: access_pb2.AccessToken, now_s: float) -> str:
    if not token.HasField("expire_time"):
        return "never"
    left_s = from_timestamp(token.expire_time) - now_s
    return f"in {format_age(left_s)}" if left_s > 0 else "has ended"
