"""A client behind a network that can be cut, in front of a scripted cluster, and how its streams are read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from roundhouse.client import Client, Generation
from roundhouse.v1 import generation_pb2
from tests.support.scripted_cluster import scripted_cluster
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_run import token_id
from tests.support.tcp_proxy import TcpProxy

WORDS = " ".join(f"word{number}" for number in range(40))
MOST_BYTES = 2_500  # less than an answer takes with all that belongs to it


@dataclass
class World:
    """A client behind a network that can be cut."""

    client: Client
    inference: ScriptedInference
    proxy: TcpProxy
    address: str


@contextlib.asynccontextmanager
async def cut_network() -> AsyncIterator[World]:
    """Gives both for the block."""
    async with (
        scripted_cluster() as (serving, _, inference),
        TcpProxy(serving.address).serving() as proxy,
        Client(proxy.address) as client,
    ):
        yield World(client, inference, proxy, serving.address)


async def whole(generation: Generation, choices: int = 1) -> list[str]:
    """Reads to the end and checks that everything came once and in order; returns the kinds of the events."""
    kinds, prompt, ids, texts = [], "", dict[int, list[int]](), dict[int, str]()
    async with generation:
        async for event in generation.events():
            kinds.append(str(event.WhichOneof("event")))
            prompt += event.prompt.text
            if event.HasField("delta"):
                delta = event.delta
                assert delta.first_position == len(ids.setdefault(delta.choice, []))
                ids[delta.choice] += delta.token_ids
                texts[delta.choice] = texts.get(delta.choice, "") + delta.text
    assert prompt in ("", f"{WORDS} ")
    words = WORDS.split(" ")
    for choice in range(choices):
        assert ids[choice] == [token_id(choice, position) for position in range(len(words))]
        assert texts[choice] == " ".join(f"{word}{choice or ''}" for word in words)
    assert kinds.count("started") == kinds.count("usage") == 1
    assert (kinds[0], kinds[-1]) == ("started", "usage")
    assert kinds.count("finished") == choices
    return kinds


async def read(generation: Generation, act: Callable[[generation_pb2.Delta], object]) -> Generation:
    """Reads to the end and does something at each piece of output."""
    async for delta in generation:
        act(delta)
    return generation


def losing(inference: ScriptedInference, request_id: str) -> Callable[[generation_pb2.Delta], None]:
    """Returns what loses a request when its first token has come."""

    def lose(delta: generation_pb2.Delta) -> None:
        if delta.first_position == 0:
            inference.lose(request_id)

    return lose


def cutting(world: World, at: int) -> Callable[[generation_pb2.Delta], None]:
    """Returns what cuts the network, and mends it, when the output has come to a position."""

    def cut(delta: generation_pb2.Delta) -> None:
        if delta.first_position == at:
            world.proxy.cut()
            world.proxy.mend()

    return cut
