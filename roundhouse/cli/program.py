"""All commands under one name, and how the one that runs ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from roundhouse.cli import exits
from roundhouse.cli.agent import agent
from roundhouse.cli.attach import attach
from roundhouse.cli.caches import cache
from roundhouse.cli.cancel import cancel
from roundhouse.cli.catalog import catalog
from roundhouse.cli.certs import certs
from roundhouse.cli.chat import chat
from roundhouse.cli.cordoning import cordon, drain, uncordon
from roundhouse.cli.deployments import list_, scale, terminate
from roundhouse.cli.events import events
from roundhouse.cli.generate import generate
from roundhouse.cli.launch import launch
from roundhouse.cli.logs import logs as logs_
from roundhouse.cli.nodes import nodes
from roundhouse.cli.plan import plan
from roundhouse.cli.replicas import replicas
from roundhouse.cli.requests import requests
from roundhouse.cli.session import Session
from roundhouse.cli.store import store
from roundhouse.cli.token import token as token_
from roundhouse.cli.top import top
from roundhouse.cli.up.command import up
from roundhouse.cli.update import update
from roundhouse.cli.values import check_text
from roundhouse.client.addresses import addresses_of
from roundhouse.client.client import DEFAULT_ADDRESS
from roundhouse.kit import logs
from roundhouse.kit.server import Listen


class _InOrder(click.Group):
    """Lists commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - named by click
        """Returns the names as they were added."""
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--address",
    metavar="HOST:PORT",
    envvar="ROUNDHOUSE_ADDRESS",
    default=DEFAULT_ADDRESS,
    show_default=True,
    help="Where the control plane listens, or several gateways of it with commas; also ROUNDHOUSE_ADDRESS.",
)
@click.option(
    "--tls-ca",
    metavar="FILE",
    type=Path,
    envvar="ROUNDHOUSE_TLS_CA",
    help="Authority of the control plane's certificate, PEM; also ROUNDHOUSE_TLS_CA.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="ROUNDHOUSE_TOKEN",
    help="Who you are, where that is asked; also ROUNDHOUSE_TOKEN, which others on this machine do not see.",
)
@click.option(
    "--token-file", metavar="FILE", type=Path, envvar="ROUNDHOUSE_TOKEN_FILE",
    help="The same, in a file; also ROUNDHOUSE_TOKEN_FILE.",
)  # fmt: skip
@click.version_option(package_name="roundhouse-serve", message="roundhouse %(version)s")
@click.pass_context
def cli(context: click.Context, address: str, tls_ca: Path | None, token: str | None, token_file: Path | None) -> None:
    """Serves language models over gRPC.

    Begin with `roundhouse up`. Exit status: 0 what was asked happened, 1 refused or failed, 2 used wrongly, 3 nobody
    answers, 130 interrupted.
    """
    for each in addresses_of(address):
        Listen.parse(each)  # raises Usage with an example of what it should look like
    context.obj = Session(address, tls_ca, token, token_file)


for each in (
    *(up, launch, plan, list_, replicas, logs_, events, nodes, top, scale, update, terminate, generate, chat),
    *(requests, attach, cancel),
    *(catalog, cache, cordon, drain, uncordon, store, token_, agent, certs),
):
    cli.add_command(each)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Prints no traceback."""
    logs.configure("error")
    try:
        check_text(sys.argv[1:] if arguments is None else arguments)
        status = cli.main(args=arguments, prog_name="roundhouse", standalone_mode=False)
    except click.Abort:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.REFUSED
    except Exception as error:  # the outermost frame: a person reads what comes out here
        if os.environ.get("ROUNDHOUSE_DEBUG"):
            raise
        exits.complain(error)
        return exits.status_of(error)
    return status if isinstance(status, int) else exits.DONE
