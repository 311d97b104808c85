"""The flags of `roundhouse launch` for packages that engines have to themselves, spelt as Xinference spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from roundhouse.client.specify import VirtualEnvSettings

Command = TypeVar("Command", bound=Callable[..., Any])

_FLAGS = (
    click.option(
        "--enable-virtual-env/--disable-virtual-env", "has_virtual_env", default=None,
        help="Packages of their own for the engines; enabled by any of the flags that say which.",
    ),
    click.option(
        "-vp", "--virtual-env-package", "packages", metavar="REQUIREMENT", multiple=True,
        help="A package, as transformers==5.16.1; repeatable.",
    ),
    click.option(
        "--virtual-env-constraint", "constraints", metavar="REQUIREMENT", multiple=True,
        help="What holds for whatever gets installed; repeatable.",
    ),
    click.option("--virtual-env-index-url", "index_url", metavar="URL", help="Where packages come from."),
    click.option(
        "--virtual-env-find-links", "--virtual-env-find-link", "find_links", metavar="DIR|URL", multiple=True,
        help="Where else they are: a directory on the nodes, or a page with links; repeatable.",
    ),
    click.option(
        "--virtual-env-inherit/--no-virtual-env-inherit", "inherit", default=None,
        help="Whether packages of the node's agent are there, too; they are by default.",
    ),
)  # fmt: skip


def environment_flags(command: Command) -> Command:
    """Gives a command all flags that `virtual_env_of` takes."""
    for decorate in reversed(_FLAGS):
        command = decorate(command)
    return command


def virtual_env_of(
    *,
    has_virtual_env: bool | None,
    packages: Sequence[str],
    constraints: Sequence[str],
    index_url: str | None,
    find_links: Sequence[str],
    inherit: bool | None,
) -> VirtualEnvSettings | None:
    """Returns what the flags say; None for the packages of the node's agent. Raises click.UsageError for both."""
    says_which = bool(packages or constraints or index_url or find_links) or inherit is not None
    if has_virtual_env is False and says_which:
        raise click.UsageError(
            "--disable-virtual-env and packages for one contradict one another: leave out one of them"
        )
    if not (has_virtual_env or says_which):
        return None
    return VirtualEnvSettings(
        packages=packages, constraints=constraints, index_url=index_url or "", find_links=find_links, inherit=inherit
    )
