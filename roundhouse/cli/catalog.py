"""`roundhouse catalog`: which models there are by name, and which nodes have their files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click
from google.protobuf import json_format

from roundhouse.cli.output import console, print_json
from roundhouse.cli.session import Session, asynchronous, json_option
from roundhouse.cli.tables import Grid, table
from roundhouse.cli.units import count_of
from roundhouse.client.names import family_name, node_id
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import catalog_pb2, catalog_service_pb2


@click.group(short_help="Shows, registers and resolves models by name.")
def catalog() -> None:
    """Families of models: those that ship with us, and those that were registered."""


@catalog.command("list")
@json_option
@click.pass_obj
@asynchronous
async def list_(session: Session, as_json: bool) -> None:
    """Shows the families, with their sizes and formats."""
    async with session.client() as client:
        listing = await client.catalog.list()
    if as_json:
        print_json(listing)
    else:
        console().print(family_table(listing.families))


@catalog.command()
@click.argument("family")
@json_option
@click.pass_obj
@asynchronous
async def show(session: Session, family: str, as_json: bool) -> None:
    """Shows FAMILY with its variants, and where the files of each may be."""
    async with session.client() as client:
        found = await client.catalog.get(family)
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(_title(found))
    out.print(variant_table(found.variants))


@catalog.command(short_help="Registers a family from a file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--replace", "allow_replace", is_flag=True, help="Take the place of one that was registered before.")
@json_option
@click.pass_obj
@asynchronous
async def register(session: Session, file: Path, allow_replace: bool, as_json: bool) -> None:
    """Registers the family in FILE, JSON as `catalog show --json` prints it; `-` reads the standard input."""
    family = _read(file)
    async with session.client() as client:
        stored = await client.catalog.register(family, allow_replace=allow_replace)
    if as_json:
        print_json(stored)
    else:
        console().print(f"{_id(stored)} is registered with {count_of(len(stored.variants), 'variant')}")


@catalog.command()
@click.argument("family")
@click.pass_obj
@asynchronous
async def remove(session: Session, family: str) -> None:
    """Deletes FAMILY, which was registered; deployments of it go on."""
    async with session.client() as client:
        await client.catalog.delete(family)
    console().print(f"{family.removeprefix('families/')} is removed")


@catalog.command(short_help="Says which files a name comes to, and which nodes have them.")
@click.argument("family")
@click.option("-s", "--size-in-billions", metavar="N", default="", help="Size: 4, 0.6, 1_8.")
@click.option("-f", "--model-format", metavar="FORMAT", default="", help="pytorch, gptq, awq, … [default: pytorch]")
@click.option("-q", "--quantization", metavar="QUANTIZATION", default="", help="none, Int4, … [default: none]")
@json_option
@click.pass_obj
@asynchronous
async def resolve(
    session: Session, family: str, size_in_billions: str, model_format: str, quantization: str, as_json: bool
) -> None:
    """Says which variant of FAMILY is meant, and what each node has of its files."""
    async with session.client() as client:
        resolved = await client.catalog.resolve(
            family,
            size_in_billions=size_in_billions,
            model_format=model_format,
            model_quantization=quantization,
        )
    if as_json:
        print_json(resolved)
        return
    out = console()
    out.print(f"{_id(resolved.family)} comes to:")
    out.print(variant_table([resolved.variant]))
    out.print(node_table(resolved))


def family_table(families: Iterable[catalog_pb2.ModelFamily]) -> Grid:
    """Returns one line for each family."""
    return table(
        ("FAMILY", "SIZES", "FORMATS", "ABILITIES", "DESCRIPTION"),
        [
            (
                _id(each),
                " ".join(dict.fromkeys(variant.size_in_billions for variant in each.variants)),
                " ".join(dict.fromkeys(variant.format or "pytorch" for variant in each.variants)),
                _abilities(each),
                each.description if each.is_builtin else f"registered: {each.description}".removesuffix(": "),
            )
            for each in families
        ],
        first_to_go=("ABILITIES", "FORMATS"),
    )


def variant_table(variants: Iterable[catalog_pb2.ModelVariant]) -> Grid:
    """Returns one line for each variant."""
    return table(
        ("SIZE", "FORMAT", "QUANTIZATION", "CONTEXT", "FILES"),
        [
            (
                each.size_in_billions,
                each.format or "pytorch",
                each.quantization or "none",
                str(each.context_tokens or ""),
                "\n".join(map(_place, each.locations)),
            )
            for each in variants
        ],
        right=("CONTEXT",),
        first_to_go=("CONTEXT",),
    )


def node_table(resolved: catalog_service_pb2.ResolveModelResponse) -> Grid:
    """Returns one line for each node: where it has the files, or what it lacks."""
    rows = [
        (
            node_id(each.node),
            format_bytes(each.weight_bytes) if each.weight_bytes else "",
            each.path or _lack(each),
        )
        for each in resolved.nodes
    ]
    rows += [(node_id(name), "", "has not answered") for name in resolved.unreachable]
    return table(("NODE", "WEIGHTS", "FILES"), rows, right=("WEIGHTS",), first_to_go=())


def _lack(node: catalog_service_pb2.NodeModel) -> str:
    if not node.fetch_bytes:
        return node.message
    return f"{format_bytes(node.fetch_bytes)} are fetched from the hub before it starts ({node.message})"


def _title(family: catalog_pb2.ModelFamily) -> str:
    parts = [_id(family), family.description, _abilities(family)]
    parts += [f"context {family.context_tokens}"] if family.context_tokens else []
    parts += ["with its own chat template"] if family.chat_template else []
    return " · ".join(each for each in parts if each)


def _abilities(family: catalog_pb2.ModelFamily) -> str:
    names = [
        catalog_pb2.ModelAbility.Name(each).removeprefix("MODEL_ABILITY_").lower()
        for each in family.abilities
        if each in catalog_pb2.ModelAbility.values()
    ]
    return " ".join(names)


def _place(location: catalog_pb2.ModelLocation) -> str:
    repository = location.repository
    return location.path or (f"{repository.id}@{repository.revision}" if repository.revision else repository.id)


def _id(family: catalog_pb2.ModelFamily) -> str:
    return family.name.removeprefix("families/")


def _read(file: Path) -> catalog_pb2.ModelFamily:
    """Returns the family in a file; raises click.UsageError if it holds none."""
    with click.open_file(str(file), encoding="utf-8") as stream:
        try:
            content = json.load(stream)
            if not isinstance(content, dict):
                raise ValueError("it is no object")
            if isinstance(content.get("name"), str):
                content["name"] = family_name(content["name"])
            return json_format.ParseDict(content, catalog_pb2.ModelFamily())
        except (ValueError, json_format.ParseError, RecursionError) as error:
            raise click.UsageError(f"{file} holds no family: {error}") from error
